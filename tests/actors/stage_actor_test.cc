// A stage as a script of messages: every one is answered once, in order and with its own round, and
// work that it cannot do has a sentence.
#include "actors/stage_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/small_model.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Notes what the stage answers, and the error where there is one.
class Listener : public Actor<Listener, ActionDone, ActionWaits, GradientReduced, StageVote,
                              UpdateDone, MicrobatchesReady> {
 public:
  explicit Listener(std::vector<std::string>& heard) : heard_(heard) {}
  Status On(ActionDone done) { return Note(ToString(done.action), done.round, done.status); }
  Status On(StageVote vote) { return Note("vote", vote.round, vote.status); }
  Status On(UpdateDone done) { return Note("update", done.step, done.status); }
  Status On(ActionWaits action) { return Note("wait of " + ToString(action.action), 0, {}); }
  Status On(GradientReduced reduced) { return Note("reduction", reduced.round, reduced.status); }
  Status On(MicrobatchesReady) { return {}; }

 private:
  Status Note(std::string_view what, int64_t number, const Status& status) {
    heard_.push_back(
        fmt::format("{} of {}{}", what, number, status.ok() ? "" : ": " + status.error().message));
    return {};
  }

  std::vector<std::string>& heard_;
};

// A whole model on one stage; its stream runs work at once.
class StageActorTest : public ::testing::Test {
 protected:
  StageActorTest() {
    scheduler_.SetOnDown([this](const Down& down) { errors_.push_back(down.error.message); });
  }
  ~StageActorTest() override { scheduler_.End(stage_); }

  void Meet() { Deliver(MeetExecutor{listener_}); }
  void Run(ActionKind kind, int32_t microbatch, int64_t round) {
    RunAction run{
        .action = {.stage = StageId(0), .kind = kind, .microbatch = MicrobatchId(microbatch)},
        .round = round,
        .step = round};
    run.data = std::make_shared<const Microbatch>(
        testing::RandomMicrobatch(testing::SmallModel(), microbatch));
    Deliver(std::move(run));
  }
  template <typename M>
  void Deliver(M message) {
    CHECK(stage_.Send(std::move(message)).ok());
    scheduler_.RunUntilIdle();
  }

  std::vector<std::string> heard_{};
  std::vector<std::string> errors_{};
  testing::StageChain chain_{testing::SmallModel()};
  Scheduler scheduler_{};
  InlineStream stream_{scheduler_};
  StateReaders readers_{};
  Listener::SelfRef listener_ = scheduler_.Spawn<Listener>({.name = "listener"}, heard_);
  StageActor::SelfRef stage_ = scheduler_.Spawn<StageActor>({.name = "stage"},
                                                            StageOptions{.rank = Rank(5),
                                                                         .stage = StageId(0),
                                                                         .last = true,
                                                                         .readers = &readers_,
                                                                         .disk_deadline_ms = 2000},
                                                            chain_.stage(0), stream_);
};

TEST_F(StageActorTest, AnswersEveryMessageOnceAndInOrder) {
  Meet();
  for (const int32_t microbatch : {0, 1}) {
    Run(ActionKind::kForward, microbatch, 4);
    Run(ActionKind::kBackward, microbatch, 4);
  }
  Deliver(CollectVote{4});
  Deliver(ApplyUpdate{.step = 4, .number = 4, .gradient_factor = 1, .learning_rate = 1e-3});
  EXPECT_THAT(heard_, ElementsAre("0F0 of 4", "0B0 of 4", "0F1 of 4", "0B1 of 4", "vote of 4",
                                  "update of 4"));
  EXPECT_THAT(errors_, IsEmpty());
}

// A checkpoint reads what an update changes; passes do not change it.
TEST_F(StageActorTest, AnUpdateWaitsForWhoReadsTheState) {
  Meet();
  readers_.Begin(3);
  Run(ActionKind::kForward, 0, 4);
  Run(ActionKind::kBackward, 0, 4);
  Deliver(ApplyUpdate{.step = 4, .number = 4, .gradient_factor = 1, .learning_rate = 1e-3});
  EXPECT_THAT(heard_, ElementsAre("0F0 of 4", "0B0 of 4"));
  const std::vector<WaitRecord> waits = scheduler_.waits().Snapshot();
  ASSERT_EQ(waits.size(), 1u);
  EXPECT_EQ(waits[0].waiter, "stage 0 (rank 5)");
  EXPECT_EQ(waits[0].owed, "optimizer: the checkpoint of step 3 to be written");
  EXPECT_EQ(waits[0].from, "the disk");
  EXPECT_EQ(waits[0].step, 4);
  EXPECT_EQ(waits[0].deadline_ns - waits[0].since_ns, 2'000'000'000);
  readers_.End();
  scheduler_.RunUntilIdle();
  EXPECT_EQ(scheduler_.waits().size(), 0) << "it goes on";
  EXPECT_THAT(heard_, ElementsAre("0F0 of 4", "0B0 of 4", "update of 4"));
  Deliver(ApplyUpdate{.step = 5, .number = 5, .gradient_factor = 1, .learning_rate = 1e-3});
  EXPECT_EQ(heard_.back(), "update of 5");
}

TEST_F(StageActorTest, WorkBeforeItMetItsExecutorIsNamed) {
  Run(ActionKind::kForward, 0, 1);
  EXPECT_THAT(heard_, IsEmpty());
  EXPECT_THAT(errors_, ElementsAre("stage 0: work came before it met its executor"));
}

// Where weights and gradients are whole.
TEST_F(StageActorTest, CollectivesHaveNothingToDo) {
  Meet();
  for (const ActionKind kind :
       {ActionKind::kUnshard, ActionKind::kReshard, ActionKind::kReduceGrad}) {
    Run(kind, 0, 2);
  }
  EXPECT_THAT(heard_, ElementsAre("0UNSHARD of 2", "0RESHARD of 2", "0REDUCE_GRAD of 2"));
}

TEST_F(StageActorTest, WhatNoStageRunsIsAnsweredWithASentence) {
  Meet();
  Run(ActionKind::kSendForward, 0, 1);
  ASSERT_EQ(heard_.size(), 1u);
  EXPECT_THAT(heard_[0], ::testing::HasSubstr(" is nothing that a stage runs"));
  Run(ActionKind::kForward, 0, 1);
  EXPECT_EQ(heard_.back(), "0F0 of 1") << "it goes on";
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(StageActorTest, AReductionThatIsAnothersIsNamed) {
  Meet();
  Deliver(ReduceGradient{.round = 1, .step = 1, .reduction = 3});
  EXPECT_THAT(heard_, IsEmpty());
  EXPECT_THAT(errors_, ElementsAre("stage 0: gradient reduction 3 is not its to start"));
}

// The round is the executor's to judge: a stage says whose answer it is.
TEST_F(StageActorTest, AnAnswerHasTheRoundThatItWasAskedIn) {
  Meet();
  Run(ActionKind::kForward, 0, 7);
  Run(ActionKind::kForward, 1, 6);
  EXPECT_THAT(heard_, ElementsAre("0F0 of 7", "0F1 of 6"));
}

TEST_F(StageActorTest, AnExecutorThatHasEndedNeedsNoAnswer) {
  Meet();
  scheduler_.End(listener_);
  Run(ActionKind::kForward, 0, 1);
  EXPECT_THAT(heard_, IsEmpty());
  EXPECT_THAT(errors_, IsEmpty());
}

}  // namespace
}  // namespace troupe
