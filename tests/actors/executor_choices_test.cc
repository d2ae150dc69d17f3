// Two executors that share every pass: the first decides their order, the other follows. And what
// an executor waits for between two rounds. The test is the stages, the loaders and the schedule.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/executor_actor.h"
#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"
#include "runtime/transport/inproc/inproc_transport.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class NotingStage : public Actor<NotingStage, RunAction, ReduceGradient, CollectVote, ApplyUpdate> {
 public:
  explicit NotingStage(std::vector<std::string>& asked) : asked_(asked) {}
  Status On(RunAction run) { return Note(ToString(run.action)); }
  Status On(ReduceGradient) { return Note("reduce"); }
  Status On(CollectVote) { return Note("vote"); }
  Status On(ApplyUpdate) { return Note("update"); }

 private:
  Status Note(std::string what) {
    asked_.push_back(std::move(what));
    return {};
  }
  std::vector<std::string>& asked_;
};

class Deaf
    : public Actor<Deaf, FetchMicrobatches, proto::CheckpointStart, proto::Vote, proto::StepDone> {
 public:
  Status On(FetchMicrobatches) { return {}; }
  Status On(proto::CheckpointStart) { return {}; }
  Status On(proto::Vote) { return {}; }
  Status On(proto::StepDone) { return {}; }
};

class ExecutorChoices : public ::testing::Test {
 protected:
  // Ranks 0 and 1, both at the one place of a pipeline that runs `list`.
  void Open(const std::string& list, const ExecutionPolicy& policy) {
    schedule_ = *ParseCsv(list + "\n", "list");
    scheduler_.SetOnDown([this](const Down& down) { errors_.push_back(down.error.message); });
    for (const Rank rank : {Rank(0), Rank(1)}) {
      transports_.push_back(network_.NewTransport(rank));
      routers_.push_back(std::make_unique<RankRouter>(scheduler_, *transports_.back(),
                                                      RankRouter::Options{.self = rank}));
    }
    for (const int rank : {0, 1}) {
      const Rank peer(1 - rank);
      CHECK(transports_[static_cast<size_t>(rank)]
                ->Connect(peer, fmt::format("inproc:{}", peer))
                .ok());
    }
    for (const int rank : {0, 1}) Spawn(rank, policy);
  }
  ~ExecutorChoices() override {
    for (const auto& executor : executors_) scheduler_.End(executor);
  }

  void Start(int rank, int64_t round, proto::StepMode mode = proto::STEP_MODE_TRAIN) {
    proto::StepStart start;
    start.set_round(round);
    start.set_step(round);
    start.set_mode(mode);
    start.set_num_microbatches(schedule_.num_microbatches);
    Tell(rank, start);
  }
  void Data(int rank, int64_t round) {
    Tell(rank, MicrobatchesReady{.round = round,
                                 .microbatches = std::vector<SharedMicrobatch>(
                                     static_cast<size_t>(schedule_.num_microbatches),
                                     std::make_shared<const Microbatch>())});
  }
  void Done(int rank, const std::string& action, int64_t round = 1) {
    Tell(rank, ActionDone{.action = *ParseAction(action), .round = round, .step = round});
  }
  // Each action of `actions` ends at the rank, as soon as it was asked for.
  void Run(int rank, const std::vector<std::string>& actions) {
    for (const std::string& action : actions) {
      EXPECT_THAT(Asked(rank), ElementsAre(action));
      Done(rank, action);
    }
  }
  std::vector<std::string> Asked(int rank) {
    return std::exchange(asked_[static_cast<size_t>(rank)], {});
  }
  // Of the rank's executor: "the choice of its next action from rank 0".
  std::string Wait(int rank) {
    for (const WaitRecord& record : scheduler_.waits().Snapshot()) {
      if (record.waiter != fmt::format("rank {}", rank)) continue;
      from_ranks_ = record.from_ranks;
      return record.owed + " from " + record.from;
    }
    return "";
  }
  template <typename M>
  void Tell(int rank, M message) {
    CHECK(executors_[static_cast<size_t>(rank)].Send(std::move(message)).ok());
    scheduler_.RunUntilIdle();
  }

  std::vector<std::string> errors_{};
  std::vector<int> from_ranks_{};  // of the last Wait

 private:
  void Spawn(int rank, const ExecutionPolicy& policy) {
    const auto index = static_cast<size_t>(rank);
    const auto deaf = scheduler_.Spawn<Deaf>({.name = fmt::format("deaf {}", rank)});
    ExecutorActor::Peers peers{.loader = deaf,
                               .checkpoint = deaf,
                               .schedule = ActorRef<proto::Vote, proto::StepDone>(deaf)};
    for (const StageId stage : schedule_.StagesOf(PipelineRank(0))) {
      peers.stages[stage] = scheduler_.Spawn<NotingStage>(
          {.name = fmt::format("stage {} of {}", stage, rank)}, asked_[index]);
    }
    ExecutorOptions options{
        .rank = Rank(rank),
        .pipeline = {Rank(rank)},
        .train = schedule_,
        .policy = policy,
        .evaluate = GenerateForwardOnly(1, schedule_.placement, schedule_.num_microbatches),
        .sample = GenerateForwardOnly(1, schedule_.placement, 1)};
    if (rank == 0) {
      peers.followers = {routers_[0]->Remote<ActionChosen>(Rank(1), kExecutorIndex)};
    } else {
      options.follows = Rank(0);
    }
    executors_[index] = scheduler_.Spawn<ExecutorActor>({.name = fmt::format("executor {}", rank)},
                                                        std::move(options), std::move(peers));
    RegisterExecutor(*routers_[index], executors_[index]);
  }

  Schedule schedule_{};
  Scheduler scheduler_{};
  InprocNetwork network_{};
  std::vector<std::unique_ptr<Transport>> transports_{};
  std::vector<std::unique_ptr<RankRouter>> routers_{};
  std::array<std::vector<std::string>, 2> asked_{};
  std::array<ExecutorActor::SelfRef, 2> executors_{};
};

const ExecutionPolicy kFree{.mode = ExecutorMode::kFreeRun, .activation_limit = 2};

TEST_F(ExecutorChoices, AFollowerStartsWhatTheFirstStarts) {
  Open("0F0,0F1,0B0,0B1", kFree);
  for (const int rank : {0, 1}) Start(rank, 1);
  Data(1, 1);
  EXPECT_THAT(Asked(1), IsEmpty());
  EXPECT_EQ(Wait(1), "the choice of its next action from rank 0");
  EXPECT_THAT(from_ranks_, ElementsAre(0));
  Data(0, 1);
  Run(0, {"0F0", "0B0", "0F1"});
  EXPECT_THAT(Asked(0), ElementsAre("0B1"));
  Run(1, {"0F0", "0B0", "0F1", "0B1"});
  EXPECT_THAT(Asked(1), ElementsAre("vote"));
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(ExecutorChoices, WhatWasChosenWaitsForItsInputs) {
  Open("0F0,0B0", kFree);
  for (const int rank : {0, 1}) Start(rank, 1);
  Data(0, 1);
  EXPECT_THAT(Asked(0), ElementsAre("0F0"));
  EXPECT_THAT(Asked(1), IsEmpty());
  EXPECT_THAT(Wait(1), ::testing::StartsWith("microbatch 0 Forward: data from"));
  Data(1, 1);
  EXPECT_THAT(Asked(1), ElementsAre("0F0"));
}

TEST_F(ExecutorChoices, AChoiceBeforeTheRoundIsKeptForIt) {
  Open("0F0,0B0", kFree);
  Start(0, 1);
  Data(0, 1);
  Run(0, {"0F0"});
  Start(1, 1);
  Data(1, 1);
  Run(1, {"0F0", "0B0"});
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(ExecutorChoices, WeightGradientsAreEachRanksOwn) {
  Open("0F0,0I0,0W0,0F1,0I1,0W1",
       {.mode = ExecutorMode::kGuided, .activation_slack = 1, .open_actions = 2});
  for (const int rank : {0, 1}) Start(rank, 1);
  for (const int rank : {0, 1}) Data(rank, 1);
  Run(0, {"0F0", "0I0", "0W0"});
  Run(1, {"0F0", "0I0"});
  EXPECT_THAT(Asked(0), ElementsAre("0F1"));
  EXPECT_THAT(Asked(1), ElementsAre("0W0")) << "in its turn";
  Done(1, "0W0");
  EXPECT_THAT(Asked(1), ElementsAre("0F1"));
  EXPECT_THAT(errors_, IsEmpty());
}

// A list that is followed strictly is the order; an evaluation's always is.
TEST_F(ExecutorChoices, NobodyFollowsWhereTheListIsTheOrder) {
  Open("0F0,0B0", {});
  Start(1, 1);
  Data(1, 1);
  EXPECT_THAT(Asked(1), ElementsAre("0F0"));
}

TEST_F(ExecutorChoices, NobodyFollowsInAnEvaluation) {
  Open("0F0,0B0", kFree);
  Start(1, 1, proto::STEP_MODE_EVAL);
  Data(1, 1);
  EXPECT_THAT(Asked(1), ElementsAre("0F0"));
}

TEST_F(ExecutorChoices, AChoiceThatCannotBeNamesBothRanks) {
  Open("0F0,0F1,0B0,0B1", kFree);
  Start(1, 1);
  Tell(1, ActionChosen{.round = 1, .microbatch = 1});
  EXPECT_THAT(errors_, ElementsAre("rank 1: rank 0 starts Forward of microbatch 1 on stage 0 in "
                                   "round 1, which is not what comes next here (round 1)"));
}

TEST_F(ExecutorChoices, AChoiceOfARoundThatIsOverIsNamed) {
  Open("0F0,0B0", kFree);
  Start(1, 7);
  Tell(1, ActionChosen{.round = 6});
  EXPECT_THAT(errors_, ElementsAre("rank 1: rank 0 starts Forward of microbatch 0 on stage 0 in "
                                   "round 6, which is not what comes next here (round 7)"));
}

TEST_F(ExecutorChoices, AChoiceOfNoKindIsNamed) {
  Open("0F0,0B0", kFree);
  Start(1, 1);
  Tell(1, ActionChosen{.round = 1, .kind = 99});
  ASSERT_EQ(errors_.size(), 1u);
  EXPECT_THAT(errors_[0], ::testing::HasSubstr("rank 0 starts something of microbatch 0"));
}

// Who stops the schedule stops everybody: they say whom they wait for.
TEST_F(ExecutorChoices, BetweenTwoStepsItWaitsForTheNext) {
  Open("0F0,0B0", {});
  Start(1, 1);
  Data(1, 1);
  Run(1, {"0F0", "0B0"});
  Tell(1, StageVote{.stage = StageId(0), .round = 1});
  EXPECT_EQ(Wait(1), "optimizer: commit from schedule (rank 0)");
  proto::Commit commit;
  commit.set_step(1);
  Tell(1, commit);
  Tell(1, UpdateDone{.stage = StageId(0), .step = 1});
  EXPECT_EQ(Wait(1), "the next step from schedule (rank 0)");
  EXPECT_THAT(from_ranks_, ElementsAre(0));
  Start(1, 2, proto::STEP_MODE_EVAL);
  EXPECT_THAT(Wait(1), ::testing::StartsWith("microbatch 0 Forward: data from"));
  Data(1, 2);
  EXPECT_EQ(Wait(1), "");
  Done(1, "0F0", 2);
  EXPECT_EQ(Wait(1), "the next step from schedule (rank 0)");
  proto::CheckpointStart checkpoint;
  Tell(1, checkpoint);
  EXPECT_EQ(Wait(1), "") << "it is this rank who owes a checkpoint";
  EXPECT_THAT(errors_, IsEmpty());
}

}  // namespace
}  // namespace troupe
