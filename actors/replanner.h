// Replanner: whether a job should run another of its orders, or hold other layers on its stages,
// from what the ranks' votes say their stages took. Used by rank 0's root beside the schedule
// actor. Pure; one thread.
//
//   P1. Times are compared as shares: when everything is slower alike, nothing changes.
//   P2. An order changes only between steps, and only to one that the plan has slots and memory for
//       (JobPlan::others).
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/plan/job_plan.h"
#include "actors/plan/model_costs.h"
#include "proto/training.pb.h"

namespace troupe {

class Replanner {
 public:
  static constexpr double kDrift = 0.2;         // of a stage's or a kind's share
  static constexpr int kPatience = 3;           // steps that a drift must last
  static constexpr double kFasterOrder = 0.02;  // what a change must gain of a simulated step
  static constexpr double kFasterLayers = 0.05;
  static constexpr double kSlow = 1.15;     // times what the median of the other ranks takes
  static constexpr int kStepsSlow = 10;     // that a rank must stay so, without a break
  static constexpr int64_t kMoveMs = 1000;  // what the ranks' start anew takes at the least

  struct NewOrder {
    size_t order = 0;
    std::string reason{};  // one line
  };
  struct NewLayers {
    std::vector<int> stage_layers{};
    std::string reason{};
  };

  // The plan outlives it. `costs`: of every rank, by its number in the job, as measured at the
  // start; or of one for all.
  Replanner(const JobPlan& plan, std::vector<ModelCosts> costs);

  // The votes of a committed training step.
  void AddStep(std::span<const proto::Vote> votes);
  // What the next step runs: 0 is plan.train, i is plan.others[i - 1].
  size_t order() const { return order_; }

  // Takes another order where times have drifted and it is faster with them.
  std::optional<NewOrder> ReconsiderOrder();
  // Other layers, where some rank stays so slow that moving them gains more in `steps_left` than a
  // start anew takes. Nothing for a schedule in two directions.
  std::optional<NewLayers> ReconsiderLayers(int64_t steps_left) const;

 private:
  const Schedule& ScheduleAt(size_t order) const;
  const ExecutionPolicy& PolicyAt(size_t order) const;
  // Simulated; 0 where the order cannot run.
  double MakespanNs(size_t order, const CostModel& costs) const;
  double Drift() const;
  // What each rank's stages take, over what they would by the costs at the start.
  std::vector<double> Slowness() const;

  const JobPlan& plan_;
  const std::vector<ModelCosts> start_costs_;
  CostModel reference_{};  // what the order was chosen for
  CostModel smoothed_{};   // what stages take of late
  size_t order_ = 0;
  std::vector<double> whole_share_{};  // per stage: a whole backward over its halves together
  bool any_step_ = false;
  int steps_drifted_ = 0;
  int steps_slow_ = 0;
};

}  // namespace troupe
