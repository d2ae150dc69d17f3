// How long actions take: per stage and kind, with noise where asked. Read by the simulator, by the
// lower bounds and by stages that only wait. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

// Waits in the middle of an action, for other ranks of a group: they cut its compute into count + 1
// segments of equal length.
struct ActionPauses {
  int32_t count = 0;
  int64_t each_ns = 0;
};

// Times of one stage for one microbatch. A Backward costs input + weight unless given on its own; a
// part of a weight gradient costs its share, the parts together exactly the whole.
struct StageCost {
  int64_t forward_ns = 0;
  int64_t backward_input_ns = 0;
  int64_t backward_weight_ns = 0;
  int64_t backward_ns = -1;  // -1: the sum of the two halves
  ActionPauses forward_pauses{};
  ActionPauses backward_pauses{};  // of a Backward or a BackwardInput; a BackwardWeight has none
  int64_t unshard_ns = 0;          // one gather of all parameters of the stage
  int64_t reduce_grad_ns = 0;      // one reduction of its gradients

  int64_t WholeBackwardNs() const {
    return backward_ns >= 0 ? backward_ns : backward_input_ns + backward_weight_ns;
  }
  int64_t WorkNs() const { return forward_ns + backward_input_ns + backward_weight_ns; }
};

struct CostModel {
  std::vector<StageCost> stages{};
  int64_t link_latency_ns = 0;  // one hop between ranks; the sender goes on meanwhile
  // What an overlapped pair takes of its actions' times one after the other: below 1 where they
  // share the device well. An eager pair has it only where the second action's input is here when
  // the first starts.
  double pair_factor = 1;

  // The same cost for every stage: f, b, w of a rank's whole share, divided by its model chunks.
  static CostModel Uniform(const Schedule& schedule, const StageCost& whole_share,
                           int64_t link_latency_ns = 0);
  int64_t CostNs(const Action& action) const;
};

// What disturbs the times of a step. Draws depend on (seed, sample, stage, kind, microbatch) alone,
// so that two schedules with the same stages meet the same noise.
struct Noise {
  double sigma = 0;             // of the logarithm of every action's factor, whose mean is 1
  double hiccup_rate = 0;       // share of the Forwards and input gradients that take longer …
  double hiccup_size = 0;       // … by this many mean Forwards of their stage
  int straggler_rank = -1;      // whose actions all take …
  double straggler_factor = 1;  // … this many times as long
  uint64_t seed = 0;

  bool any() const { return sigma > 0 || hiccup_rate > 0 || straggler_rank >= 0; }
};

// Every action's time in one step.
class ActionTimes {
 public:
  ActionTimes(const Schedule& schedule, const CostModel& costs);
  ActionTimes(const Schedule& schedule, const CostModel& costs, const Noise& noise,
              uint64_t sample);

  int64_t Ns(const Action& action) const;
  ActionPauses Pauses(const Action& action) const;
  bool has_pauses() const { return has_pauses_; }  // of any action
  // The sum over a rank's actions, where every microbatch passes through its stages.
  int64_t WorkNs(const Schedule& schedule, PipelineRank rank) const;
  int64_t link_latency_ns() const { return link_latency_ns_; }
  double pair_factor() const { return pair_factor_; }

 private:
  const StageCost& Of(StageId stage, MicrobatchId microbatch) const {
    return times_[static_cast<size_t>(stage.value) * row_ +
                  (row_ == 1 ? 0 : static_cast<size_t>(microbatch.value))];
  }

  size_t row_ = 1;                // microbatches told apart
  std::vector<StageCost> times_;  // [stage][microbatch, or 1]
  int64_t link_latency_ns_ = 0;
  double pair_factor_ = 1;
  bool has_pauses_ = false;
};

}  // namespace troupe
