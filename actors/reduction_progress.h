// ReductionProgress: how far one rank has got with the gradient reductions of a step. Pure: the
// executor tells what happened and starts what Next says, beside its actions.
//
//   D1. A reduction starts when every copy of its weights on this rank has its last gradient, not
//       later: it goes on while other stages compute.
//   D2. Those of one stage come in their order in the plan: a tied gradient is the sum over both
//       directions first.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "actors/plan/gradient_reduction.h"

namespace troupe {

class ReductionProgress {
 public:
  // Those of the plan's `reductions` that have a stage on `rank`.
  ReductionProgress(const std::vector<GradientReduction>& reductions, const Schedule& schedule,
                    PipelineRank rank);

  void MarkGradients(StageId stage);  // the last gradient of the stage is there
  // The reduction to start, by its place in the plan, and the stage that starts it: the last of
  // this rank's copies. Each is named once.
  struct Step {
    int32_t reduction = -1;
    StageId stage{};
  };
  std::optional<Step> Next();
  // False where it is not under way.
  [[nodiscard]] bool MarkReduced(int32_t reduction);
  bool Done() const;

  // A REDUCE_GRAD of the rank's list (an entry) has begun what it begins; it ends when the sums of
  // the stage over the data-parallel ranks are there, whose lists are the same. It waits for no
  // other rank of the pipeline: that one may need what stands behind a wait for this entry.
  void MarkBegun(int32_t entry, StageId stage) { begun_.push_back({entry, stage}); }
  std::vector<int32_t> TakeEnded();  // entries, each once

 private:
  enum class State : uint8_t { kWaiting, kRunning, kDone };
  struct Own {
    int32_t index = 0;  // in the plan
    SharedWeights weights = SharedWeights::kTied;
    std::vector<StageId> stages{};
    State state = State::kWaiting;
  };
  bool MayStart(size_t own) const;
  bool HasRanksSums(StageId stage) const;

  std::vector<Own> own_{};  // in the plan's order
  std::set<StageId> has_gradients_{};
  std::vector<std::pair<int32_t, StageId>> begun_{};
};

}  // namespace troupe
