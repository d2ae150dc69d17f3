// One executor as a script of messages, where the test is all the others: what comes early, late,
// twice or wrong, and what is said of it.
#include "actors/executor_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "actors/schedule/generators.h"
#include "runtime/transport/inproc/inproc_transport.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr int kMicrobatches = 2;
constexpr int kSlots = 8;
constexpr int kBytes = 16;
const TensorDescriptor kBoundary = {.rank = 1, .shape = {4, 0, 0, 0}, .num_bytes = kBytes};

// Has done at once what it is asked for.
class PromptStage : public Actor<PromptStage, RunAction, ReduceGradient, CollectVote, ApplyUpdate> {
 public:
  PromptStage(const Schedule& train, MemoryLedger& ledger, const ExecutorActor::SelfRef& executor)
      : train_(train), ledger_(ledger), executor_(executor) {}

  Status On(RunAction run) {
    ActionDone done{.action = run.action, .round = run.round, .step = run.step};
    if (OutputOf(train_, run.action)) done.output = Buffer(ledger_, MemoryTag::kComm, kBytes);
    return executor_.Send(std::move(done));
  }
  Status On(ReduceGradient reduce) {
    return executor_.Send(GradientReduced{.round = reduce.round, .reduction = reduce.reduction});
  }
  Status On(CollectVote collect) { return executor_.Send(StageVote{.round = collect.round}); }
  Status On(ApplyUpdate update) { return executor_.Send(UpdateDone{.step = update.step}); }

 private:
  const Schedule& train_;
  MemoryLedger& ledger_;
  const ExecutorActor::SelfRef& executor_;
};

class PromptLoader : public Actor<PromptLoader, FetchMicrobatches> {
 public:
  explicit PromptLoader(const ExecutorActor::SelfRef& executor) : executor_(executor) {}
  Status On(FetchMicrobatches fetch) {
    return executor_.Send(MicrobatchesReady{
        .round = fetch.round,
        .microbatches = std::vector<SharedMicrobatch>(static_cast<size_t>(fetch.num_microbatches),
                                                      std::make_shared<const Microbatch>())});
  }

 private:
  const ExecutorActor::SelfRef& executor_;
};

// Notes what the executor tells the schedule actor and the other rank.
class Listener : public Actor<Listener, proto::Vote, proto::StepDone, WithBulk<Activation>,
                              WithBulk<ActivationGradient>> {
 public:
  explicit Listener(std::vector<std::string>& heard) : heard_(heard) {}
  Status On(proto::Vote vote) { return Note("vote", vote.round()); }
  Status On(proto::StepDone done) { return Note("done", done.step()); }
  Status On(WithBulk<Activation> m) { return Note("activation", m.message.microbatch); }
  Status On(WithBulk<ActivationGradient> m) { return Note("gradient", m.message.microbatch); }

 private:
  Status Note(std::string_view what, int64_t number) {
    heard_.push_back(fmt::format("{} {}", what, number));
    return {};
  }

  std::vector<std::string>& heard_;
};

// The executor of a rank of a pipeline of two, 1F1B.
class ExecutorActorTest : public ::testing::Test {
 protected:
  ~ExecutorActorTest() override { scheduler_.End(executor_); }

  void Open(Rank self) {
    self_ = self;
    other_ = Rank(1 - self.value);
    train_ = *Generate({.name = "1f1b", .num_ranks = 2, .num_microbatches = kMicrobatches});
    scheduler_.SetOnDown([this](const Down& down) { errors_.push_back(down.error.message); });
    for (const Rank rank : {Rank(0), Rank(1)}) {
      transports_.push_back(network_.NewTransport(rank));
      routers_.push_back(std::make_unique<RankRouter>(scheduler_, *transports_.back(),
                                                      RankRouter::Options{.self = rank}));
    }
    for (const Rank rank : {Rank(0), Rank(1)}) {
      const Rank peer(1 - rank.value);
      Transport& transport = *transports_[static_cast<size_t>(rank.value)];
      CHECK(transport.Connect(peer, fmt::format("inproc:{}", peer)).ok());
      for (const uint16_t channel : {kActivationChannel, kGradientChannel}) {
        CHECK(transport.PostSlots(peer, channel, kSlots, kBytes).ok());
        transport.SetCredits(peer, channel, kSlots);
      }
    }
    SpawnAll();
  }

  void Start(int64_t round, int num_microbatches = kMicrobatches) {
    proto::StepStart start;
    start.set_round(round);
    start.set_step(round);
    start.set_num_microbatches(num_microbatches);
    Deliver(start);
  }
  void Commit(int64_t step) {
    proto::Commit commit;
    commit.set_step(step);
    Deliver(commit);
  }
  // An activation or a gradient for the executor's stage, of another stage or shape where given.
  void Arrive(InputKind kind, int64_t round, int32_t microbatch, const TensorDescriptor& tensor,
              int32_t stage) {
    const std::vector<std::byte>& bytes = sent_.emplace_back(tensor.num_bytes);
    const Postmark postmark{.channel = ChannelOf(kind)};
    const NeighbourRef executor(&router(other_), self_, kExecutorIndex, Incarnation(1));
    const Status sent =
        kind == InputKind::kActivation
            ? executor.SendBulk(
                  Activation{.round = round,
                             .stage = static_cast<int16_t>(stage),
                             .microbatch = microbatch,
                             .tensor = tensor},
                  bytes, [] {}, postmark)
            : executor.SendBulk(
                  ActivationGradient{round, stage, microbatch, tensor}, bytes, [] {}, postmark);
    CHECK(sent.ok(), "{}", sent.error().message);
    scheduler_.RunUntilIdle();
  }
  void Arrive(InputKind kind, int64_t round, int32_t microbatch) {
    Arrive(kind, round, microbatch, kBoundary, self_.value);
  }
  void Activate(int64_t round, int32_t microbatch) {
    Arrive(InputKind::kActivation, round, microbatch);
  }
  template <typename M>
  void Deliver(M message) {
    CHECK(executor_.Send(std::move(message)).ok());
    scheduler_.RunUntilIdle();
  }

  std::vector<std::string> heard_{};
  std::vector<std::string> errors_{};

 private:
  RankRouter& router(Rank rank) { return *routers_[static_cast<size_t>(rank.value)]; }

  void SpawnAll() {
    const auto listener = scheduler_.Spawn<Listener>({.name = "listener"}, heard_);
    router(other_).Register<WithBulk<Activation>, WithBulk<ActivationGradient>>(kExecutorIndex,
                                                                                listener);
    const Schedule forward = GenerateForwardOnly(2, train_.placement, kMicrobatches);
    executor_ = scheduler_.Spawn<ExecutorActor>(
        {.name = "executor"},
        ExecutorOptions{.rank = self_,
                        .place = PipelineRank(self_.value),
                        .pipeline = {Rank(0), Rank(1)},
                        .train = train_,
                        .evaluate = forward,
                        .sample = GenerateForwardOnly(2, train_.placement, 1),
                        .boundary = kBoundary,
                        .output_buffers = kSlots},
        ExecutorActor::Peers{
            .stages = {{StageId(self_.value), scheduler_.Spawn<PromptStage>(
                                                  {.name = "stage"}, train_, ledger_, executor_)}},
            .loader = scheduler_.Spawn<PromptLoader>({.name = "loader"}, executor_),
            .schedule = ActorRef<proto::Vote, proto::StepDone>(listener),
            .neighbours = {
                {PipelineRank(other_.value),
                 NeighbourRef(&router(self_), other_, kExecutorIndex, Incarnation(1))}}});
    RegisterExecutor(router(self_), executor_);
  }

  Rank self_{}, other_{};
  std::deque<std::vector<std::byte>> sent_{};  // until it is read
  Schedule train_{};
  MemoryLedger ledger_{};
  Scheduler scheduler_{};
  InprocNetwork network_{};
  std::vector<std::unique_ptr<Transport>> transports_{};
  std::vector<std::unique_ptr<RankRouter>> routers_{};
  ExecutorActor::SelfRef executor_{};
};

TEST_F(ExecutorActorTest, AStepIsItsInputsThenAVoteThenACommit) {
  Open(Rank(1));
  Start(1);
  EXPECT_THAT(heard_, IsEmpty());
  Activate(1, 0);
  EXPECT_THAT(heard_, ElementsAre("gradient 0"));
  Activate(1, 1);
  EXPECT_THAT(heard_, UnorderedElementsAre("gradient 0", "gradient 1", "vote 1"));
  Commit(1);
  EXPECT_EQ(heard_.back(), "done 1");
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(ExecutorActorTest, WhatComesBeforeItsRoundIsKeptForIt) {
  Open(Rank(1));
  Activate(1, 0);
  Activate(2, 1);  // of the round after
  EXPECT_THAT(heard_, IsEmpty());
  Start(1);
  EXPECT_THAT(heard_, ElementsAre("gradient 0"));
  Activate(1, 1);
  Activate(2, 0);  // before the commit
  Commit(1);
  heard_.clear();
  Start(2);
  EXPECT_THAT(heard_, UnorderedElementsAre("gradient 0", "gradient 1", "vote 2"));
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(ExecutorActorTest, AnEarlyInputOfNoMicrobatchOfTheStepIsNamed) {
  Open(Rank(1));
  Activate(1, 7);
  EXPECT_THAT(errors_, IsEmpty());
  Start(1);
  EXPECT_THAT(errors_, ElementsAre("rank 1: an input of stage 1, microbatch 7 is not its"));
}

// ---- what does not belong here ----------------------------------------------------------------

struct Arrival {
  int64_t round = 0;
  int32_t microbatch = 0;
};

struct WrongArrival {
  std::string name{};
  int rank = 1;                     // the last stage's, which reads activations; 0: gradients
  int64_t started = 1;              // the round that has; 0: none
  std::vector<Arrival> arrivals{};  // the last is wrong
  int32_t elements = kBytes / 4;
  int32_t stage = rank;
  std::string sentence{};
};

class WrongArrivals : public ExecutorActorTest,
                      public ::testing::WithParamInterface<WrongArrival> {};

TEST_P(WrongArrivals, AreNamed) {
  const WrongArrival& wrong = GetParam();
  Open(Rank(wrong.rank));
  if (wrong.started > 0) Start(wrong.started);
  const InputKind kind = wrong.rank == 0 ? InputKind::kGradient : InputKind::kActivation;
  const TensorDescriptor tensor{.rank = 1,
                                .shape = {wrong.elements, 0, 0, 0},
                                .num_bytes = static_cast<uint64_t>(4 * wrong.elements)};
  for (const Arrival& arrival : wrong.arrivals) {
    EXPECT_THAT(errors_, IsEmpty());
    Arrive(kind, arrival.round, arrival.microbatch, tensor, wrong.stage);
  }
  EXPECT_THAT(errors_, ElementsAre(wrong.sentence));
}

INSTANTIATE_TEST_SUITE_P(
    Executor, WrongArrivals,
    ::testing::Values(
        WrongArrival{.name = "AnActivationOfAnEarlierRound",
                     .started = 3,
                     .arrivals = {{2, 0}},
                     .sentence = "rank 1: activation for stage 1, microbatch 0, round 2 with 16 "
                                 "bytes does not fit the plan (16 bytes between stages, round 3)"},
        WrongArrival{.name = "AGradientOfAnEarlierRound",
                     .rank = 0,
                     .started = 2,
                     .arrivals = {{1, 0}},
                     .sentence = "rank 0: gradient for stage 0, microbatch 0, round 1 with 16 "
                                 "bytes does not fit the plan (16 bytes between stages, round 2)"},
        WrongArrival{.name = "AnActivationThatWasReadComesAgain",
                     .arrivals = {{1, 0}, {1, 0}},
                     .sentence = "rank 1: activation for stage 1, microbatch 0 came twice"},
        WrongArrival{.name = "AnActivationThatWaitsComesAgain",
                     .arrivals = {{1, 1}, {1, 1}},
                     .sentence = "rank 1: activation for stage 1, microbatch 1 came twice"},
        WrongArrival{.name = "AnEarlyActivationComesAgain",
                     .started = 0,
                     .arrivals = {{1, 0}, {1, 0}},
                     .sentence = "rank 1: activation for stage 1, microbatch 0 came twice"},
        WrongArrival{.name = "AGradientThatWasReadComesAgain",
                     .rank = 0,
                     .arrivals = {{1, 0}, {1, 0}},
                     .sentence = "rank 0: gradient for stage 0, microbatch 0 came twice"},
        WrongArrival{.name = "AnActivationOfAnotherSize",
                     .arrivals = {{1, 0}},
                     .elements = 3,
                     .sentence = "rank 1: activation for stage 1, microbatch 0, round 1 with 12 "
                                 "bytes does not fit the plan (16 bytes between stages, round 1)"},
        WrongArrival{.name = "AnActivationForAStageOfAnotherRank",
                     .arrivals = {{1, 0}},
                     .stage = 0,
                     .sentence = "rank 1: activation for stage 0, microbatch 0, round 1 with 16 "
                                 "bytes does not fit the plan (16 bytes between stages, round 1)"}),
    [](const auto& info) { return info.param.name; });

TEST_F(ExecutorActorTest, AStepThatStartsWithinAnotherIsNamed) {
  Open(Rank(1));
  Start(1);
  Start(2);
  EXPECT_THAT(errors_, ElementsAre("rank 1: round 2 starts before round 1 has ended"));
}

TEST_F(ExecutorActorTest, AStepOfOtherMicrobatchesThanThePlanIsNamed) {
  Open(Rank(1));
  Start(1, 3);
  EXPECT_THAT(errors_, ElementsAre("rank 1: round 1 has 3 microbatches, the plan 2"));
}

TEST_F(ExecutorActorTest, AnAnswerOfAnotherRoundIsNamed) {
  Open(Rank(1));
  Start(2);
  const Action forward{.stage = StageId(1), .kind = ActionKind::kForward};
  Deliver(ActionDone{.action = forward, .round = 1});
  ASSERT_EQ(errors_.size(), 1u);
  EXPECT_THAT(errors_[0], HasSubstr("answers round 1 in round 2"));
}

TEST_F(ExecutorActorTest, AnAnswerToNothingIsNamed) {
  Open(Rank(1));
  Start(1);
  Activate(1, 0);
  const Action forward{.stage = StageId(1), .kind = ActionKind::kForward};
  Deliver(ActionDone{.action = forward, .round = 1});
  ASSERT_EQ(errors_.size(), 1u);
  EXPECT_THAT(errors_[0], HasSubstr("ends without having started"));
}

TEST_F(ExecutorActorTest, ACommitBeforeTheVoteIsNamed) {
  Open(Rank(1));
  Start(1);
  Commit(1);
  EXPECT_THAT(errors_, ElementsAre("rank 1: commit of step 1 in step 1, not voted"));
}

TEST_F(ExecutorActorTest, ACommitOfAnotherStepIsNamed) {
  Open(Rank(1));
  Start(2);
  Activate(2, 0);
  Activate(2, 1);
  Commit(1);
  EXPECT_THAT(errors_, ElementsAre("rank 1: commit of step 1 in step 2, not voted"));
}

TEST_F(ExecutorActorTest, ACommitThatComesAgainIsNamed) {
  Open(Rank(1));
  Start(1);
  Activate(1, 0);
  Activate(1, 1);
  Commit(1);
  Commit(1);
  EXPECT_THAT(errors_, ElementsAre("rank 1: commit of step 1 in step 1, not voted"));
}

}  // namespace
}  // namespace troupe
