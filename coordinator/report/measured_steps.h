// MeasuredSteps: gathers what ranks tell of their compute actions until a training step is whole,
// and keeps the newest whole one. Pure; one thread.
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
  static constexpr size_t kStepsGatheredMax = 8;
  static constexpr int kRanksGatheredMax = 512;

  // The orders that the plan's steps may run.
  explicit MeasuredSteps(const JobPlan& plan);

  // Spans other than a training step's compute actions are passed over. Times on one axis.
  void AddSpan(int32_t rank, const proto::Span& span);
  // Which order the step ran; of a plan with one order that is known.
  void AddStep(int64_t step, int32_t order);

  int64_t step() const { return whole_step_; }  // 0: none is whole
  const Timeline& timeline() const { return whole_; }
  // What the step was to run.
  const TrainSchedule& order() const { return orders_[whole_order_]; }
  // The order that it took, to be run again as it was: Frozen (transforms.h).
  Schedule AsRun() const;

 private:
  struct Gathering {
    std::vector<std::vector<Bar>> bars{};  // per rank, in the order of their starts
    std::optional<size_t> order{};
  };
  Gathering& GatheringOf(int64_t step);
  void KeepIfWhole(int64_t step);

  std::vector<TrainSchedule> orders_{};
  std::vector<std::vector<size_t>> num_actions_{};  // per order and rank
  std::map<int64_t, Gathering> gathering_{};        // step → bars, the newest few
  Timeline whole_{};
  size_t whole_order_ = 0;
  int64_t whole_step_ = 0;
};

}  // namespace troupe
