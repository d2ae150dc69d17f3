// The simulator against real processes: what a step of eight ranks takes, measured and simulated.
// The ranks are processes of this host with the real executors and messages of 1 MiB; their
// arithmetic is a timed wait of the modelled cost (10 ms an action in the mean), so that few cores
// suffice; where they may, they go before whatever else runs on the host. The one thing that the
// simulator is told of this machine is the cost of a hop, measured here in the same way.
#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "actors/schedule/execution_settings.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/simulator.h"
#include "tests/benchmark/bench.h"
#include "tests/support/forked_job.h"

namespace troupe {
namespace {

constexpr int kRanks = 8;
constexpr int kMicrobatches = 16;
constexpr int kSteps = 7;
constexpr int kPairs = 10;        // seeds that two schedules run through
constexpr int kTimesEach = 3;     // a seed is run, its median counts
constexpr double kActionMs = 10;  // mean
constexpr double kJitterSigma = 0.2;
constexpr uint64_t kJitterSeed = 20;

ExecutableSchedule ScheduleOf(std::string_view name, int num_microbatches) {
  auto lists = Generate(
      {.name = std::string(name), .num_ranks = kRanks, .num_microbatches = num_microbatches});
  CHECK(lists.ok(), "{}", lists.error().message);
  auto made = MakeExecutable(*std::move(lists), {});
  CHECK(made.ok(), "{}", made.error().message);
  return *std::move(made);
}

// Of a rank's whole share of the model, where the schedule's mean action takes kActionMs.
StageCost WholeShare(const Schedule& schedule) {
  const double actions = static_cast<double>(schedule.ranks.front().size()) / kMicrobatches;
  const auto part = [&](double weight) {
    return std::llround(weight / 2.9 * actions * kActionMs * 1e6);
  };
  return {.forward_ns = part(1), .backward_input_ns = part(1.1), .backward_weight_ns = part(0.8)};
}

// The steps but for the first, in which memory and connections are touched for the first time.
Result<std::vector<Timeline>> Measure(const ExecutableSchedule& made,
                                      std::vector<ActionTimes> steps) {
  steps.insert(steps.begin(), steps.front());
  ASSIGN_OR_RETURN(auto timelines, testing::RunForkedJob({.train = made.schedule,
                                                          .policy = made.policy,
                                                          .steps = std::move(steps),
                                                          .real_time = true}));
  timelines.erase(timelines.begin());
  return timelines;
}

Idle Simulated(const ExecutableSchedule& made, const ActionTimes& times) {
  const auto simulation =
      Simulator(made.schedule, {.policy = made.policy, .keep_bars = false}).Run(times);
  CHECK(simulation.ok(), "{}", simulation.error().message);
  return simulation->idle;
}

// From the end of an action to the start of the one on the next rank that has waited for it, in
// steps of one microbatch: there and back through all ranks, one at a time.
Result<std::vector<double>> HopsUs() {
  const ExecutableSchedule chain = ScheduleOf("1f1b", 1);
  const ActionTimes times(chain.schedule,
                          CostModel::Uniform(chain.schedule, {2'000'000, 2'000'000, 1'000'000}));
  ASSIGN_OR_RETURN(auto steps, Measure(chain, std::vector(4 * kSteps, times)));
  std::vector<double> medians;
  for (Timeline& step : steps) {
    std::ranges::sort(step.bars, {}, &Bar::start_ns);
    std::vector<double> hops;
    for (size_t i = 1; i < step.bars.size(); ++i) {
      if (step.bars[i].rank == step.bars[i - 1].rank) continue;
      hops.push_back(static_cast<double>(step.bars[i].start_ns - step.bars[i - 1].end_ns) / 1e3);
    }
    medians.push_back(bench::Median(std::move(hops)));
  }
  return medians;
}

void CompareMakespans(bench::Bench& bench, std::string_view name, int64_t hop_ns) {
  bench::Row row{.what = {.name = fmt::format("pipeline_makespan/{}", name),
                          .unit = "ms a step",
                          .peer_name = "simulator",
                          .within = 0.05}};
  const ExecutableSchedule made = ScheduleOf(name, kMicrobatches);
  const ActionTimes times(made.schedule,
                          CostModel::Uniform(made.schedule, WholeShare(made.schedule), hop_ns));
  const auto steps = Measure(made, std::vector(kSteps, times));
  if (!steps.ok()) return bench.Skip(row.what, steps.error().message);
  row.peer = {static_cast<double>(Simulated(made, times).makespan_ns) / 1e6};
  for (const Timeline& step : *steps) {
    row.ours.push_back(static_cast<double>(IdleOf(step).makespan_ns) / 1e6);
  }
  bench.Report(row);
}

struct Bubbles {  // makespan, in points, by seed
  std::vector<double> measured{};
  std::vector<double> simulated{};
};

Result<Bubbles> JitteredBubbles(const ExecutableSchedule& made, const CostModel& costs) {
  std::vector<ActionTimes> steps;
  Bubbles bubbles;
  for (uint64_t pair = 0; pair < kPairs; ++pair) {
    const ActionTimes times(made.schedule, costs, {.sigma = kJitterSigma, .seed = kJitterSeed},
                            pair);
    steps.insert(steps.end(), kTimesEach, times);
    bubbles.simulated.push_back(100 * Simulated(made, times).bubble_makespan);
  }
  ASSIGN_OR_RETURN(const auto timelines, Measure(made, std::move(steps)));
  for (size_t first = 0; first < timelines.size(); first += kTimesEach) {
    std::vector<double> runs;
    for (size_t i = first; i < first + kTimesEach; ++i) {
      runs.push_back(100 * IdleOf(timelines[i]).bubble_makespan);
    }
    bubbles.measured.push_back(bench::Median(std::move(runs)));
  }
  return bubbles;
}

// What a dynamic schedule saves where actions take longer and shorter than planned.
void CompareUnderJitter(bench::Bench& bench, int64_t hop_ns) {
  bench::Row row{.what = {.name = "pipeline_makespan/jitter",
                          .unit = "points of makespan bubble, dynamic - zb-v",
                          .peer_name = "simulator",
                          .apart_max = 1.5}};
  const ExecutableSchedule list = ScheduleOf("zb-v", kMicrobatches);
  const ExecutableSchedule dynamic = ScheduleOf("dynamic", kMicrobatches);
  const CostModel costs = CostModel::Uniform(list.schedule, WholeShare(list.schedule), hop_ns);
  const auto of_list = JitteredBubbles(list, costs);
  if (!of_list.ok()) return bench.Skip(row.what, of_list.error().message);
  const auto of_dynamic = JitteredBubbles(dynamic, costs);
  if (!of_dynamic.ok()) return bench.Skip(row.what, of_dynamic.error().message);
  for (size_t pair = 0; pair < kPairs; ++pair) {
    row.ours.push_back(of_dynamic->measured[pair] - of_list->measured[pair]);
    row.peer.push_back(of_dynamic->simulated[pair] - of_list->simulated[pair]);
  }
  bench.Report(row);
}

TROUPE_BENCHMARK(PipelineMakespan) {
  bench::Row hop{.what = {.name = "pipeline_makespan/hop", .unit = "us a hop of 1 MiB"}};
  auto hops_us = HopsUs();
  if (!hops_us.ok()) return bench.Skip(hop.what, hops_us.error().message);
  hop.ours = *std::move(hops_us);
  bench.Report(hop);
  const int64_t hop_ns = std::llround(1e3 * bench::Median(hop.ours));
  for (const auto* name : {"1f1b", "interleaved-1f1b", "zb-v", "dualpipe-v", "dynamic"}) {
    CompareMakespans(bench, name, hop_ns);
  }
  CompareUnderJitter(bench, hop_ns);
}

}  // namespace
}  // namespace troupe
