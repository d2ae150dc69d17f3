// What the runtime costs per action: whole jobs over stages that compute nothing, one thread, so
// that the time of a step is executor, next-action choice, messages, votes and commit alone.
#include <string>
#include <vector>

#include "tests/benchmark/bench.h"
#include "tests/support/in_process_job.h"

namespace troupe {
namespace {

constexpr int kBytes = 16;

class IdleStage
    : public Actor<IdleStage, RunAction, CollectVote, TakeTied, MergeTied, ApplyUpdate> {
 public:
  IdleStage(testing::InProcessJob::RankContext context, MemoryLedger& ledger)
      : context_(std::move(context)), ledger_(ledger) {}

  Status On(RunAction run) {
    ActionDone done{.action = run.action, .round = run.round};
    const bool forward = run.action.kind == ActionKind::kForward;
    const bool last = context_.schedule.IsLastStage(run.action.stage);
    const bool first = context_.schedule.IsFirstStage(run.action.stage);
    if (forward && last) done.num_tokens = 1;
    if (forward ? !last : !first) done.output = Buffer(ledger_, MemoryTag::kActivations, kBytes);
    return context_.executor().Send(std::move(done));
  }
  Status On(CollectVote collect) {
    StageVote vote{.stage = context_.stage, .round = collect.round};
    auto& node = vote.norm_nodes.emplace_back();
    node.set_parameter(context_.stage.value);
    node.set_num_leaves(1);
    node.set_sum(1);
    return context_.executor().Send(std::move(vote));
  }
  Status On(TakeTied) { return {}; }
  Status On(MergeTied) { return {}; }
  Status On(ApplyUpdate update) {
    return context_.executor().Send(UpdateDone{.stage = context_.stage, .step = update.step});
  }

 private:
  const testing::InProcessJob::RankContext context_;
  MemoryLedger& ledger_;
};

class IdleLoader : public Actor<IdleLoader, FetchTokens> {
 public:
  explicit IdleLoader(testing::InProcessJob::RankContext context) : context_(std::move(context)) {}
  Status On(FetchTokens fetch) {
    for (int m = 0; m < fetch.num_microbatches; ++m) {
      RETURN_IF_ERROR(context_.executor().Send(TokensReady{fetch.round, MicrobatchId(m), tokens_}));
    }
    return {};
  }

 private:
  const testing::InProcessJob::RankContext context_;
  const std::shared_ptr<const std::vector<int32_t>> tokens_ =
      std::make_shared<const std::vector<int32_t>>(1, 0);
};

double UsPerAction(int num_ranks, int num_microbatches, int num_steps) {
  MemoryLedger ledger;
  testing::InProcessJobOptions options{.num_ranks = num_ranks,
                                       .num_microbatches = num_microbatches};
  options.boundary = {.dtype = 0, .rank = 1, .shape = {kBytes / 4, 0, 0, 0}, .num_bytes = kBytes};
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
        return context.scheduler.Spawn<IdleStage>({.name = "stage"}, context, ledger);
      },
      [](const testing::InProcessJob::RankContext& context) -> LoaderRef {
        return context.scheduler.Spawn<IdleLoader>({.name = "loader"}, context);
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
