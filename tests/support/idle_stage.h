// A stage that computes nothing: the loss of a microbatch is its number. For what the runtime
// costs, and for runs by seed.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "tests/support/answering_stage.h"
#include "tests/support/in_process_job.h"

namespace troupe::testing {

inline constexpr int kIdleTokens = 4;  // of a microbatch, in float32
inline constexpr int kIdleBytes = 4 * kIdleTokens;

class IdleStage : public AnsweringStage<IdleStage> {
 public:
  IdleStage(const RankPlace& place, StageId stage, MemoryLedger& ledger)
      : AnsweringStage(place, stage), ledger_(ledger) {}

  using AnsweringStage::On;
  Status On(RunAction run) {
    ActionDone done = AnswerTo(run);
    if (OutputOf(plan().train, run.action)) {
      done.output = Buffer(ledger_, MemoryTag::kActivations, kIdleBytes);
    }
    return executor().Send(std::move(done));
  }

 private:
  MemoryLedger& ledger_;
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
