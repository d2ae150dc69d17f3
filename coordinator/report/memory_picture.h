// MemoryPicture: how much memory a job's ranks use, drawn: rank by rank through one traced step,
// and below it the fullest rank's over the whole run. Pure; one thread.
//   P1. The step is the latest that every rank shown has told whole; of more than kRanksShown ranks
//       the first and the last ones are shown.
//   P2. What ranks say is kept in bounded room, however much that is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "actors/plan/job_plan.h"
#include "proto/worker.pb.h"
#include "runtime/format/stacked_chart.h"

namespace troupe {

class MemoryPicture {
 public:
  static constexpr size_t kRunSamplesMax = 4096;
  static constexpr int32_t kRanksShown = 8;
  static constexpr size_t kStepsGathered = 8;
  static constexpr int kStepSamplesMax = 2048;  // of a rank; more is no rank of ours

  explicit MemoryPicture(std::string job_name) : job_name_(std::move(job_name)) {}

  // What the ranks run from now on. `isa` tells which rank needs most.
  void Replan(const JobPlan& plan, VectorIsa isa);
  void AddReport(int32_t rank, double seconds, const proto::MemoryReport& report);
  void AddStep(int32_t rank, const proto::StepMemory& step);

  // 0: none.
  int64_t drawn_step() const { return drawn_step_; }
  // Empty while there is nothing to draw.
  std::string Svg() const;

 private:
  using StepOfRanks = std::map<int32_t, StackedData>;  // rank → bytes over milliseconds

  bool Shows(int32_t rank) const;
  std::string StepSvg(int height_px) const;
  std::string RunSvg(int height_px) const;

  const std::string job_name_;
  int32_t num_ranks_ = 0;
  std::map<int32_t, std::string> rank_titles_{};  // of those shown
  int32_t fullest_rank_ = 0;                      // by prediction; its run is the one drawn
  StackedData run_{};
  double run_predicted_ = 0;                    // bytes, all tags
  std::map<int64_t, StepOfRanks> gathering_{};  // the newest few
  int64_t drawn_step_ = 0;
  StepOfRanks drawn_{};
};

}  // namespace troupe
