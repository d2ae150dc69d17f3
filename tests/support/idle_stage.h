// A stage that computes nothing: the loss of a microbatch is its number. For what the runtime
// costs, and for runs by seed.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "tests/support/in_process_job.h"

namespace troupe::testing {

inline constexpr int kIdleTokens = 4;  // of a microbatch, in float32
inline constexpr int kIdleBytes = 4 * kIdleTokens;

class IdleStage
    : public Actor<IdleStage, MeetExecutor, RunAction, ReduceGradient, CollectVote, ApplyUpdate> {
 public:
  IdleStage(const RankPlace& place, StageId stage, MemoryLedger& ledger)
      : plan_(place.plan), stage_(stage), ledger_(ledger) {}

  Status On(MeetExecutor meet) {
    executor_ = meet.executor;
    return {};
  }
  Status On(RunAction run) {
    ActionDone done{.action = run.action, .round = run.round};
    const bool forward = run.action.kind == ActionKind::kForward;
    const bool last = plan_.train.IsLastStage(run.action.stage);
    const bool first = plan_.train.IsFirstStage(run.action.stage);
    if (forward && last) {
      done.loss_sum = run.action.microbatch.value;
      done.num_tokens = 1;
    }
    if (forward ? !last : !first)
      done.output = Buffer(ledger_, MemoryTag::kActivations, kIdleBytes);
    return executor_.Send(std::move(done));
  }
  Status On(CollectVote collect) {
    return executor_.Send(UnitVote(plan_, stage_, collect.round, 1));
  }
  Status On(ReduceGradient reduce) {
    return executor_.Send(GradientReduced{.round = reduce.round, .reduction = reduce.reduction});
  }
  Status On(ApplyUpdate update) {
    return executor_.Send(UpdateDone{.stage = stage_, .step = update.step});
  }

 private:
  const JobPlan& plan_;
  const StageId stage_;
  MemoryLedger& ledger_;
  ExecutorAnswers executor_{};
};

class IdleLoader : public Actor<IdleLoader, MeetExecutor, FetchMicrobatches> {
 public:
  Status On(MeetExecutor meet) {
    executor_ = meet.executor;
    return {};
  }
  Status On(FetchMicrobatches fetch) {
    const auto count = static_cast<size_t>(fetch.num_microbatches);
    return executor_.Send(
        MicrobatchesReady{fetch.round, std::vector<SharedMicrobatch>(count, data_)});
  }

 private:
  ExecutorAnswers executor_{};
  const SharedMicrobatch data_ = std::make_shared<const Microbatch>();
};

}  // namespace troupe::testing
