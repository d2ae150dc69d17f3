#include "tests/actors/schedule/jitter_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "actors/schedule/generators.h"
#include "actors/schedule/lower_bound.h"
#include "actors/schedule/simulator.h"

namespace troupe::testing {
namespace {

constexpr int kRanks = 8;
constexpr int kMicrobatches = 32;
constexpr double kUnitNs = 1e6;
constexpr double kHop = 0.1;

ExecutableSchedule ExecutableOf(const JitterRow& row) {
  ExecutionSettings settings{.executor = row.executor, .weight_parts = row.weight_parts};
  if (row.activations > 0) {
    const bool limit = std::string_view(row.executor) == "free-run";
    (limit ? settings.activation_limit : settings.activation_slack) = row.activations * kRanks;
  }
  return *MakeExecutable(
      *Generate({.name = row.lists, .num_ranks = kRanks, .num_microbatches = kMicrobatches}),
      settings);
}

// What bounds one sampled step.
struct SampledWork {
  double bound_ns = 0;
  double busiest_ns = 0;  // start and work of the rank with the most work
  double most_work_ns = 0;
};

SampledWork WorkOf(const Schedule& schedule, const LowerBound& mean, const ActionTimes& times) {
  SampledWork sampled;
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    const auto work_ns = static_cast<double>(times.WorkNs(schedule, PipelineRank(rank)));
    const double end_ns =
        work_ns + static_cast<double>(mean.ranks[static_cast<size_t>(rank)].head_ns);
    sampled.bound_ns = std::max(sampled.bound_ns, end_ns);
    if (work_ns > sampled.most_work_ns) {
      sampled.most_work_ns = work_ns;
      sampled.busiest_ns = end_ns;
    }
  }
  return sampled;
}

}  // namespace

JitterSamples SampleJitter(const JitterRow& row, const JitterCondition& condition,
                           int num_samples) {
  const ExecutableSchedule executable = ExecutableOf(row);
  const Schedule& schedule = executable.schedule;
  const auto ns = [](double units) { return std::llround(units * kUnitNs); };
  const CostModel costs = CostModel::Uniform(schedule,
                                             {.forward_ns = ns(1),
                                              .backward_input_ns = ns(condition.b),
                                              .backward_weight_ns = ns(condition.w)},
                                             ns(kHop));
  const LowerBound mean = LowerBoundOf(schedule, costs);
  const Noise noise{.sigma = condition.sigma,
                    .hiccup_rate = condition.hiccup_rate,
                    .hiccup_size = condition.hiccup_size,
                    .seed = 1};
  const Simulator simulator(schedule, {.policy = executable.policy, .keep_bars = false});
  JitterSamples samples;
  for (int sample = 0; sample < num_samples; ++sample) {
    const ActionTimes times(schedule, costs, noise, static_cast<uint64_t>(sample));
    const Idle idle = simulator.Run(times)->idle;
    const SampledWork work = WorkOf(schedule, mean, times);
    const auto makespan_ns = static_cast<double>(idle.makespan_ns);
    samples.makespan_bubble.push_back(100 * idle.bubble_makespan);
    samples.span_bubble.push_back(100 *
                                  (1 - work.most_work_ns / static_cast<double>(idle.span_ns)));
    samples.above_bound.push_back(100 * (makespan_ns / work.bound_ns - 1));
    samples.above_busiest.push_back(100 * (makespan_ns / work.busiest_ns - 1));
  }
  return samples;
}

std::string LabelOf(const JitterRow& row) {
  std::string label = row.lists;
  if (std::string_view(row.executor) == "guided") label += ", guided";
  if (std::string_view(row.executor) == "free-run") {
    label += fmt::format(", free-run within {}p", row.activations);
  } else if (row.activations > 0) {
    label += fmt::format(" with slack {}p", row.activations);
  }
  if (row.weight_parts > 1) label += fmt::format(", {} parts", row.weight_parts);
  return label;
}

const JitterRow& FreeRunRow() {
  return *std::ranges::find_if(kJitterRows, [](const JitterRow& row) {
    return std::string_view(row.lists) == "dynamic" && row.activations == 1.5 &&
           row.weight_parts == 4;
  });
}

const JitterRow& ZeroBubbleVRow() {
  return *std::ranges::find_if(kJitterRows, [](const JitterRow& row) {
    return std::string_view(row.lists) == "zb-v" && std::string_view(row.executor) == "strict";
  });
}

FigureTable StillFigures() {
  FigureTable table{.title = "policies without noise, per cent", .decimals = 2};
  for (const JitterRow& row : kJitterRows) {
    const double ours = SampleJitter(row, kJitterConditions[kStill], 1).makespan_bubble.front();
    table.rows.push_back(
        {.label = LabelOf(row),
         .p = kRanks,
         .shape = "",
         .figures = {{"makespan bubble", ours, row.makespan[kStill], kOneDecimal}}});
  }
  return table;
}

Estimate EstimateOf(const std::vector<double>& samples) {
  CHECK(!samples.empty(), "no samples");
  const auto count = static_cast<double>(samples.size());
  Estimate estimate;
  for (const double sample : samples) estimate.mean += sample / count;
  if (samples.size() == 1) return estimate;
  double squares = 0;
  for (const double sample : samples) {
    squares += (sample - estimate.mean) * (sample - estimate.mean);
  }
  estimate.standard_error = std::sqrt(squares / (count - 1) / count);
  return estimate;
}

Estimate EstimateOfDifference(const std::vector<double>& a, const std::vector<double>& b) {
  CHECK(a.size() == b.size(), "{} and {} samples are no pairs", a.size(), b.size());
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) differences.push_back(a[i] - b[i]);
  return EstimateOf(differences);
}

std::vector<JitterGoal> JitterGoals(int num_samples) {
  const auto sample = [num_samples](const JitterRow& row, Jitter condition) {
    return SampleJitter(row, kJitterConditions[condition], num_samples);
  };
  const JitterSamples free_run = sample(FreeRunRow(), kMiddle);
  const JitterSamples zb_v = sample(ZeroBubbleVRow(), kMiddle);
  const JitterSamples hiccups = sample(FreeRunRow(), kHiccups);
  return {
      {"σ = 0.2: above the bound", EstimateOf(free_run.above_bound), 2},
      {"σ = 0.2: above the busiest rank's", EstimateOf(free_run.above_busiest), 2},
      {"σ = 0.2: points of makespan bubble below static ZB-V",
       EstimateOfDifference(zb_v.makespan_bubble, free_run.makespan_bubble), 3, false},
      {"σ = 0.2 and hiccups: above the bound", EstimateOf(hiccups.above_bound), 8.5},
      {"σ = 0.2 and hiccups: above the busiest rank's", EstimateOf(hiccups.above_busiest), 8.5},
  };
}

}  // namespace troupe::testing
