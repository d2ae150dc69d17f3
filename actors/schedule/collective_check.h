// CollectiveCheck: whether the collectives of a schedule's lists can stand where they do. Used by
// the validator, which goes through each rank's list in order. Reasons are clauses after a cell's
// name; an empty one: it may stand here.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

// Of an action with a microbatch: whether it is one of its stage's.
std::string MicrobatchReason(const Schedule& schedule, const Action& action);

class CollectiveCheck {
 public:
  explicit CollectiveCheck(const Schedule& schedule);  // outlives it

  // The action was the last one for the weight gradient of its microbatch.
  void MarkGradients(const Action& action);
  // `index`: of the collective in its rank's list. Its stage is one of the rank.
  std::string Reason(const Action& action, size_t index);
  // After all lists.
  Status Complete() const;

 private:
  struct Stage {
    std::optional<size_t> unshard{};  // where the UNSHARD stands whose RESHARD has not come
    int gradients = 0;                // microbatches whose weight gradient is there
    bool reduced = false;             // as a whole
    bool reduced_in_parts = false;    // microbatch by microbatch
    bool awaited = false;
  };
  struct Cell {
    bool gradient = false;
    bool reduced = false;
  };
  Stage& Of(StageId stage) { return stages_[static_cast<size_t>(stage.value)]; }
  const Stage& Of(StageId stage) const { return stages_[static_cast<size_t>(stage.value)]; }
  Cell& CellOf(const Action& action) {
    return cells_[static_cast<size_t>(action.stage.value) *
                      static_cast<size_t>(schedule_.num_microbatches) +
                  static_cast<size_t>(action.microbatch.value)];
  }

  static std::string UnshardReason(const Action& action, size_t index, Stage& stage);
  static std::string ReshardReason(const Action& action, Stage& stage);
  std::string GradientsReason(StageId stage) const;
  std::string SumReason(const Action& action, Stage& stage) const;
  std::string PartialSumReason(const Action& action, Stage& stage);
  std::string WaitReason(const Action& action, Stage& stage) const;

  const Schedule& schedule_;
  std::vector<Stage> stages_;
  std::vector<Cell> cells_;  // [stage][microbatch]
};

}  // namespace troupe
