// MeasuredSteps: gathers what ranks tell of their actions until a training step is whole, and of
// the whole ones knows that of median time. Pure; one thread. Of ranks that stand at one place of
// several pipelines, those of rank 0's pipeline count.
//   P1. Of the first kStepsKeptMax whole steps all are kept; of more, equally spaced ones (fewer
//       where steps have very many actions).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "actors/plan/job_plan.h"
#include "actors/schedule/timeline.h"
#include "proto/worker.pb.h"

namespace troupe {

class MeasuredSteps {
 public:
  // Ranks tell their spans several times a second: of so many short steps at once.
  static constexpr size_t kStepsGatheredMax = 512;
  static constexpr size_t kStepsGatheredMin = 8;  // where steps have very many actions
  static constexpr size_t kStepsKeptMax = 64;
  static constexpr size_t kBarsKeptMax = size_t{1} << 19;  // of those gathered, too
  static constexpr int kRanksGatheredMax = 512;

  // The orders that the plan's steps may run.
  explicit MeasuredSteps(const JobPlan& plan);

  // `rank`: its number in the job. Spans other than a training step's actions are passed over.
  // Times on one axis.
  void AddSpan(int32_t rank, const proto::Span& span);
  // The step has committed: which order it ran, and what it took.
  void AddStep(int64_t step, int32_t order, double seconds);

  int64_t num_whole() const { return num_whole_; }
  // Of the step of median time, the lower one of two; 0: none is whole.
  int64_t step() const { return kept_.empty() ? 0 : Median().step; }
  // The others only where a step is whole.
  const Timeline& timeline() const { return Median().timeline; }
  // What the step was to run.
  const TrainSchedule& order() const { return orders_[Median().order]; }
  // The order that it took, to be run again as it was: Frozen (transforms.h).
  Schedule AsRun() const;

 private:
  struct Gathering {
    std::vector<std::vector<Bar>> bars{};  // per rank, in the order of their starts
    std::optional<size_t> order{};         // once it has committed
    double seconds = 0;
  };
  struct WholeStep {
    int64_t step = 0;
    double seconds = 0;
    size_t order = 0;
    Timeline timeline{};
  };
  Gathering& GatheringOf(int64_t step);
  void KeepIfWhole(int64_t step);
  void Keep(WholeStep whole);
  const WholeStep& Median() const;

  Mesh mesh_{};
  std::vector<TrainSchedule> orders_{};
  std::vector<std::vector<size_t>> num_actions_{};  // per order and rank
  std::map<int64_t, Gathering> gathering_{};        // step → bars, the newest few
  std::vector<WholeStep> kept_{};                   // by time
  size_t gathered_max_ = kStepsGatheredMax;
  int64_t num_whole_ = 0;
  int64_t keep_every_ = 1;    // so many whole steps, one is kept
  int64_t newest_whole_ = 0;  // step
};

}  // namespace troupe
