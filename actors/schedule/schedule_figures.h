// What a schedule costs: one simulated step, or many with noise, in figures. Called by
// `troupe schedule`. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "actors/schedule/action_costs.h"
#include "actors/schedule/execution_settings.h"
#include "actors/schedule/lower_bound.h"
#include "actors/schedule/simulator.h"

namespace troupe {

struct FigureOptions {
  Noise noise{};
  int num_samples = 1;  // at least 1; sample s of any two schedules has the same noise
  std::function<void(int done)> on_sample{};  // after each, where somebody waits for all
  double held_for_weight = 1;                 // ρ
  // Of the lower bound, in microbatches of a rank's whole share; the schedule's own peak where it
  // is not given.
  std::optional<double> activations_max{};
};

struct Estimate {
  double mean = 0;
  double standard_error = 0;  // 0 for one sample
};

struct ScheduleFigures {
  Estimate makespan_ns{};
  Estimate span_ns{};
  Estimate bubble_makespan{};  // rates
  Estimate bubble_span{};
  Estimate bubble_makespan_ns{};
  Estimate bubble_span_ns{};
  std::vector<double> peak_activations{};  // per rank, the most of all samples
  LowerBound lower_bound{};                // of the mean times
  double lower_bound_activations = 0;      // the limit that it is for
  // Makespan above the sample's own bound, as a share of it. That bound is the largest over ranks
  // of the earliest start and the sampled work.
  Estimate excess{};
  // The order of the first sample: the lists themselves in strict mode.
  Schedule executed{};
  Timeline timeline{};  // of the first sample
};

// kInvalidSpec where the schedule deadlocks.
Result<ScheduleFigures> FiguresOf(const ExecutableSchedule& executable, const CostModel& costs,
                                  const FigureOptions& options = {});

}  // namespace troupe
