// Event simulation of a schedule: every rank decides by NextAction on virtual time, as the executor
// does. Called by the planner, the validator, `troupe schedule` and the choice of a schedule.
// Pure, one thread.
//
// Everything that happens at one moment (ends, arrivals) is seen before any rank decides. An action
// that waits in its middle leaves a bar for each segment; what is over its wait goes on before
// anything new starts, the longest waiting first, as on a rank's stream.
//
// Collectives run on an engine of the rank's own, one after the other, beside its compute. A pass
// that reads weights waits for the gather of its stage, where one is under way.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "actors/schedule/action_costs.h"
#include "actors/schedule/execution_policy.h"
#include "actors/schedule/schedule.h"
#include "actors/schedule/timeline.h"

namespace troupe {

struct SimulateOptions {
  ExecutionPolicy policy{};
  // Slots a receiver posts for each channel; an output without one is held back by its sender,
  // which goes on. 0: as many as ChannelsOf computes, so that no output ever waits.
  int slots_per_channel = 0;
  double held_for_weight = 1;  // ρ: part of an activation that stays until the weight gradient
  bool keep_bars = true;       // false saves memory where only the figures count
};

struct Simulation {
  Timeline timeline{};  // empty without keep_bars
  Idle idle{};
  int64_t bubble_makespan_ns = 0;  // makespan − mean work of a rank
  int64_t bubble_span_ns = 0;
  std::vector<double> peak_activations{};  // per rank, in microbatches of its whole share
  std::vector<int> peak_microbatches{};    // per stage: most whose backward had not ended
  int64_t num_actions = 0;
  int max_parked = 0;  // most outputs of one channel that waited for a slot at one time
};

// A schedule under one policy, made ready to run any number of times.
class Simulator {
 public:
  // The schedule outlives it and has passed ValidateStructure.
  explicit Simulator(const Schedule& schedule, const SimulateOptions& options = {});
  ~Simulator();
  Simulator(Simulator&&) noexcept;

  // kInvalidSpec with the cycle in words where the schedule deadlocks under the options.
  Result<Simulation> Run(const ActionTimes& times) const;

 private:
  struct Prepared;
  std::unique_ptr<const Prepared> prepared_;
};

// One run with the mean times.
Result<Simulation> Simulate(const Schedule& schedule, const CostModel& costs,
                            const SimulateOptions& options = {});

}  // namespace troupe
