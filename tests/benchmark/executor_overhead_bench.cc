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
  testing::InProcessJobOptions options{.num_ranks = num_ranks,
                                       .num_microbatches = num_microbatches};
  options.boundary = {.dtype = 0,
                      .rank = 1,
                      .shape = {testing::kIdleBytes / 4, 0, 0, 0},
                      .num_bytes = testing::kIdleBytes};
  options.steps.steps = num_steps;
  options.steps.num_microbatches = num_microbatches;
  options.steps.global_batch_size = num_microbatches;
  options.steps.num_parameters = num_ranks;
  options.steps.checkpoint_at_end = false;
  options.steps.seq_len = 1;
  options.steps.learning_rate = [](int64_t) { return 0.5; };
  testing::InProcessJob job(
      options,
      [&](const testing::InProcessJob::RankContext& context) -> StageRef {
        return context.scheduler.Spawn<testing::IdleStage>({.name = "stage"}, context, ledger);
      },
      [](const testing::InProcessJob::RankContext& context) -> LoaderRef {
        return context.scheduler.Spawn<testing::IdleLoader>({.name = "loader"}, context);
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
