// How fast schedules are simulated, and how long the choice of one takes.
#include "actors/schedule/generators.h"
#include "actors/schedule/schedule_choice.h"
#include "actors/schedule/simulator.h"
#include "tests/benchmark/bench.h"

namespace troupe {
namespace {

constexpr StageCost kShare{
    .forward_ns = 1200, .backward_input_ns = 1200, .backward_weight_ns = 1200};

double MillionActionsPerSecond(const std::string& name) {
  constexpr int kRuns = 40;
  const auto schedule = Generate({.name = name, .num_ranks = 16, .num_microbatches = 64});
  CHECK(schedule.ok());
  const Simulator simulator(*schedule, {.keep_bars = false});
  const ActionTimes times(*schedule, CostModel::Uniform(*schedule, kShare, 120));
  int64_t actions = 0;
  const double start_ns = bench::ProcessCpuNs();
  for (int run = 0; run < kRuns; ++run) actions += simulator.Run(times)->num_actions;
  return static_cast<double>(actions) * 1e3 / (bench::ProcessCpuNs() - start_ns);
}

double ChoiceMs() {
  ChoiceOptions options{
      .num_ranks = 16, .num_microbatches = 64, .activation_limit = DefaultActivationLimit(16)};
  options.costs = [](const Schedule& schedule) -> Result<CostModel> {
    return CostModel::Uniform(schedule, kShare, 120);
  };
  const double start_ns = bench::ProcessCpuNs();
  CHECK(ChooseSchedule(options).ok());
  return (bench::ProcessCpuNs() - start_ns) * 1e-6;
}

TROUPE_BENCHMARK(SimulatorSpeed) {
  for (const std::string name : {"1f1b", "zb-v"}) {
    bench.Compare(
        {.name = "simulator/" + name,
         .unit = "M actions/CPU s",
         .peer_name = "the goal",
         .goal = 1,
         .higher_is_better = true},
        [&] { return MillionActionsPerSecond(name); }, [] { return 2.0; });
  }
}

TROUPE_BENCHMARK(ChoiceOfSchedule) {
  bench.Compare({.name = "schedule_auto/p16/m64",
                 .unit = "CPU ms",
                 .peer_name = "the goal",
                 .goal = 1,
                 .num_rounds = 3},
                ChoiceMs, [] { return 1000.0; });
}

}  // namespace
}  // namespace troupe
