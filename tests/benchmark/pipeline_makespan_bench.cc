// The simulator against real processes: what a step of eight ranks takes, measured and simulated.
// The ranks are processes of this host with the real executors and messages of 1 MiB; their
// arithmetic is a timed wait of the modelled cost (10 ms an action in the mean), so that few cores
// suffice; where they may, they go before whatever else runs on the host. What the simulator is
// told of this machine is the cost of a hop and of a pause, measured here in the same way.
#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "actors/schedule/csv.h"
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

// Every action of the lists waits once in its middle, as for the other ranks of a group, almost as
// long as it computes before and after.
constexpr ActionPauses kOnePause{.count = 1, .each_ns = 9'000'000};

CostModel WithPauses(CostModel costs, const ActionPauses& pauses) {
  for (StageCost& stage : costs.stages) stage.forward_pauses = stage.backward_pauses = pauses;
  return costs;
}

// What a pause takes here, with the timer that ends it.
Result<ActionPauses> MeasuredPause() {
  constexpr int64_t kComputeNs = 5'000'000;
  ExecutableSchedule made{.schedule = *ParseCsv("0F0,0B0\n", "alone")};
  const CostModel costs{.stages = {{.forward_ns = kComputeNs, .backward_ns = kComputeNs}}};
  const ActionTimes times(made.schedule, WithPauses(costs, kOnePause));
  ASSIGN_OR_RETURN(const auto steps, Measure(made, std::vector(2 * kSteps, times)));
  std::vector<double> pauses_ns;
  for (const Timeline& step : steps) {
    pauses_ns.push_back(static_cast<double>(IdleOf(step).makespan_ns - 2 * kComputeNs) / 2);
  }
  return ActionPauses{.count = kOnePause.count,
                      .each_ns = std::llround(bench::Median(std::move(pauses_ns)))};
}

// Of DualPipe's pairs while each of their actions waits: hidden waits are counted.
void ComparePaused(bench::Bench& bench, int64_t hop_ns) {
  bench::Row row{.what = {.name = "pipeline_makespan/dualpipe-v-paused",
                          .unit = "ms a step",
                          .peer_name = "simulator",
                          .within = 0.05}};
  ExecutableSchedule made = ScheduleOf("dualpipe-v", kMicrobatches);
  made.policy.open_actions = 2;
  const auto pause = MeasuredPause();
  if (!pause.ok()) return bench.Skip(row.what, pause.error().message);
  const CostModel costs = CostModel::Uniform(made.schedule, WholeShare(made.schedule), hop_ns);
  const auto steps =
      Measure(made, std::vector(kSteps, ActionTimes(made.schedule, WithPauses(costs, kOnePause))));
  if (!steps.ok()) return bench.Skip(row.what, steps.error().message);
  const ActionTimes simulated(made.schedule, WithPauses(costs, *pause));
  row.peer = {static_cast<double>(Simulated(made, simulated).makespan_ns) / 1e6};
  for (const Timeline& step : *steps) {
    row.ours.push_back(static_cast<double>(IdleOf(step).makespan_ns) / 1e6);
  }
  bench.Report(row);
}

// One rank whose Forward of the next microbatch and Backward of the last one are a pair. The bound
// is the larger of all the pair's compute and of either action alone with its waits.
void ComparePair(bench::Bench& bench) {
  bench::Row row{.what = {.name = "pipeline_makespan/overlapped-pair",
                          .unit = "ms a pair",
                          .peer_name = "its compute alone",
                          .within = 0.05}};
  std::string text = "0F0";
  for (int m = 1; m < kMicrobatches; ++m) {
    text += fmt::format(",(0F{};0B{})OVERLAP_F_B", m, m - 1);
  }
  auto schedule = ParseCsv(fmt::format("{},0B{}\n", text, kMicrobatches - 1), "pairs");
  CHECK(schedule.ok(), "{}", schedule.error().message);
  const ExecutableSchedule made{.schedule = *std::move(schedule), .policy = {.open_actions = 2}};
  constexpr int64_t kComputeNs = 20'000'000;
  const StageCost cost{.forward_ns = kComputeNs,
                       .backward_ns = kComputeNs,
                       .forward_pauses = kOnePause,
                       .backward_pauses = kOnePause};
  const ActionTimes times(made.schedule, CostModel{.stages = {cost}});
  const auto steps = Measure(made, std::vector(kSteps, times));
  if (!steps.ok()) return bench.Skip(row.what, steps.error().message);
  const int64_t alone_ns = kComputeNs + kOnePause.count * kOnePause.each_ns;
  row.peer = {static_cast<double>(std::max(2 * kComputeNs, alone_ns)) / 1e6};
  const double first_and_last_ms = 2 * static_cast<double>(alone_ns) / 1e6;
  const auto a_pair_ms = [&](int64_t makespan_ns) {
    return (static_cast<double>(makespan_ns) / 1e6 - first_and_last_ms) / (kMicrobatches - 1);
  };
  CHECK(std::abs(a_pair_ms(Simulated(made, times).makespan_ns) - row.peer.front()) < 0.01,
        "the simulator does not overlap the pair");
  for (const Timeline& step : *steps) row.ours.push_back(a_pair_ms(IdleOf(step).makespan_ns));
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
  ComparePaused(bench, hop_ns);
  ComparePair(bench);
  CompareUnderJitter(bench, hop_ns);
}

}  // namespace
}  // namespace troupe
