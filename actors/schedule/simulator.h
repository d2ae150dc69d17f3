// Event simulation of a schedule: every rank decides by NextAction on virtual time, as the executor
// does. Called by the planner, the validator's tests and `troupe schedule`. Pure, one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/schedule/schedule.h"
#include "actors/schedule/timeline.h"

namespace troupe {

// Times of one stage for one microbatch. A Backward costs input + weight unless given on its own; a
// part of a weight gradient costs its share, the parts together exactly the whole.
struct StageCost {
  int64_t forward_ns = 0;
  int64_t backward_input_ns = 0;
  int64_t backward_weight_ns = 0;
  int64_t backward_ns = -1;  // -1: the sum of the two halves
};

struct CostModel {
  std::vector<StageCost> stages{};
  int64_t link_latency_ns = 0;  // one hop between ranks; the sender goes on meanwhile

  // The same cost for every stage: f, b, w of a rank's whole share, divided by its model chunks.
  static CostModel Uniform(const Schedule& schedule, const StageCost& whole_share,
                           int64_t link_latency_ns = 0);
  int64_t CostNs(const Action& action) const;
};

struct SimulateOptions {
  int slots_per_channel = 0;  // as in ValidateOptions
  int output_buffers = 0;
  bool keep_bars = true;  // false saves memory where only the figures count
};

struct Simulation {
  Timeline timeline{};  // empty without keep_bars
  Idle idle{};
  int64_t bubble_makespan_ns = 0;  // makespan − mean work of a rank
  int64_t bubble_span_ns = 0;
  std::vector<double> peak_activations{};  // per rank, as in ScheduleReport
  int64_t num_actions = 0;
  int max_parked = 0;  // most outputs of one channel that waited for a slot at one time
};

// kFailed with the cycle in words where the schedule deadlocks under the options.
Result<Simulation> Simulate(const Schedule& schedule, const CostModel& costs,
                            const SimulateOptions& options = {});

}  // namespace troupe
