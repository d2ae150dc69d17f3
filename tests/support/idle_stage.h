// A stage that computes nothing: the loss of a microbatch is its number. For what the runtime
// costs, and for runs by seed.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "tests/support/in_process_job.h"

namespace troupe::testing {

inline constexpr int kIdleBytes = 16;

class IdleStage
    : public Actor<IdleStage, RunAction, CollectVote, TakeGradient, MergeGradient, ApplyUpdate> {
 public:
  IdleStage(InProcessJob::RankContext context, MemoryLedger& ledger)
      : context_(std::move(context)), ledger_(ledger) {}

  Status On(RunAction run) {
    ActionDone done{.action = run.action, .round = run.round};
    const bool forward = run.action.kind == ActionKind::kForward;
    const bool last = context_.schedule.IsLastStage(run.action.stage);
    const bool first = context_.schedule.IsFirstStage(run.action.stage);
    if (forward && last) {
      done.loss_sum = run.action.microbatch.value;
      done.num_tokens = 1;
    }
    if (forward ? !last : !first)
      done.output = Buffer(ledger_, MemoryTag::kActivations, kIdleBytes);
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
  Status On(TakeGradient) { return {}; }
  Status On(MergeGradient) { return {}; }
  Status On(ApplyUpdate update) {
    return context_.executor().Send(UpdateDone{.stage = context_.stage, .step = update.step});
  }

 private:
  const InProcessJob::RankContext context_;
  MemoryLedger& ledger_;
};

class IdleLoader : public Actor<IdleLoader, FetchTokens> {
 public:
  explicit IdleLoader(InProcessJob::RankContext context) : context_(std::move(context)) {}
  Status On(FetchTokens fetch) {
    const auto count = static_cast<size_t>(fetch.num_microbatches);
    return context_.executor().Send(
        TokensReady{fetch.round, std::vector<TokenBlock>(count, tokens_)});
  }

 private:
  const InProcessJob::RankContext context_;
  const std::shared_ptr<const std::vector<int32_t>> tokens_ =
      std::make_shared<const std::vector<int32_t>>(1, 0);
};

}  // namespace troupe::testing
