// What the runtime costs per action: whole jobs over stages that compute nothing, one thread, so
// that the time of a step is executor, next-action choice, messages, votes and commit alone.
#include <string>
#include <vector>

#include "tests/benchmark/bench.h"
#include "tests/support/idle_stage.h"

namespace troupe {
namespace {

double UsPerAction(int num_ranks, int num_microbatches, int num_steps) {
  MemoryLedger ledger;
  testing::InProcessJob job(
      {.num_ranks = num_ranks,
       .num_microbatches = num_microbatches,
       .tokens = testing::kIdleTokens,
       .steps = {.steps = num_steps}},
      [&](const RankPlace& place, StageId stage) {
        return place.scheduler.Spawn<testing::IdleStage>({.name = fmt::format("stage {}", stage)},
                                                         place, stage, ledger);
      },
      [](const RankPlace& place) {
        return place.scheduler.Spawn<testing::IdleLoader>({.name = "loader"});
      });
  const double start_ns = bench::ProcessCpuNs();
  job.Run();
  const double spent_ns = bench::ProcessCpuNs() - start_ns;
  CHECK(job.ended && job.errors.empty(), "the job of idle stages failed");
  const double actions = 2.0 * num_ranks * num_microbatches * num_steps;
  return spent_ns / 1000 / actions;
}

TROUPE_BENCHMARK(ExecutorOverhead) {
  for (const int num_ranks : {1, 4}) {
    bench.Measure(
        {.name = fmt::format("executor_overhead/pp{}", num_ranks), .unit = "CPU us/action"},
        [num_ranks] { return UsPerAction(num_ranks, 32, 100); });
  }
}

}  // namespace
}  // namespace troupe
