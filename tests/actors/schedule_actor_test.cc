#include "actors/schedule_actor.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "actors/train_program.h"
#include "tests/runtime/actor/manual_clock.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kMicrobatches = 1;

// What the schedule actor said to one rank.
struct Heard {
  std::vector<proto::StepStart> starts{};
  std::vector<proto::Commit> commits{};
  std::vector<proto::CheckpointStart> checkpoints{};
};

class FakeRank : public Actor<FakeRank, proto::StepStart, proto::Commit, proto::CheckpointStart> {
 public:
  explicit FakeRank(Heard& heard) : heard_(heard) {}
  Status On(proto::StepStart start) {
    heard_.starts.push_back(std::move(start));
    return {};
  }
  Status On(proto::Commit commit) {
    heard_.commits.push_back(std::move(commit));
    return {};
  }
  Status On(proto::CheckpointStart start) {
    heard_.checkpoints.push_back(std::move(start));
    return {};
  }

 private:
  Heard& heard_;
};

// What it said to the job actor.
struct Followed {
  std::vector<int64_t> opened{};
  std::vector<CommitShards> committed{};
  std::vector<int64_t> steps{};
  std::vector<int64_t> evaluated{};
  std::vector<int32_t> sampled{};
  std::string ended{};
};

class FakeJob : public Actor<FakeJob, StepCommitted, proto::EvalMetrics, TokensSampled, OpenFolders,
                             CommitShards, TrainingEnded> {
 public:
  explicit FakeJob(Followed& followed) : followed_(followed) {}
  Status On(StepCommitted step) {
    followed_.steps.push_back(step.metrics.step());
    EXPECT_EQ(step.votes.size(), 3U);
    return {};
  }
  Status On(proto::EvalMetrics metrics) {
    followed_.evaluated.push_back(metrics.step());
    return {};
  }
  Status On(TokensSampled tokens) {
    followed_.sampled = std::move(tokens.continuation);
    return {};
  }
  Status On(OpenFolders open) {
    followed_.opened.push_back(open.step);
    return {};
  }
  Status On(CommitShards commit) {
    followed_.committed.push_back(std::move(commit));
    return {};
  }
  Status On(TrainingEnded ended) {
    EXPECT_EQ(followed_.ended, "") << "it ends once";
    followed_.ended = fmt::format(
        "{} after step {}", ended.end.ok() ? "ok" : ended.end.error().message, ended.last_step);
    return {};
  }

 private:
  Followed& followed_;
};

class ScheduleActorTest : public ::testing::Test {
 protected:
  static constexpr int kRanks = 3;

  ScheduleActorTest() : scheduler_({.clock = &clock_}) {
    scheduler_.SetOnDown([this](const Down& down) { downs_.push_back(down.error.message); });
    options_.steps = 2;
    options_.num_microbatches = kMicrobatches;
    options_.evaluate = {.num_microbatches = kMicrobatches, .global_batch_size = 4};
    options_.global_batch_size = 4;
    options_.num_parameters = 1;
    options_.learning_rate = [](int64_t) { return 0.5; };
    options_.checkpoint_at_end = false;
  }

  void Begin() {
    Spawn();
    Say(BeginTraining{});
  }
  void Spawn() {
    std::vector<RankRef> ranks;
    for (int rank = 0; rank < kRanks; ++rank) {
      ranks.push_back(scheduler_.Spawn<FakeRank>({.name = fmt::format("rank {}", rank)},
                                                 std::ref(heard_[static_cast<size_t>(rank)])));
    }
    const JobRef job = scheduler_.Spawn<FakeJob>({.name = "job"}, std::ref(followed_));
    schedule_ =
        scheduler_.Spawn<ScheduleActor>({.name = "schedule"}, ScheduleOptions{},
                                        std::make_unique<TrainProgram>(options_), ranks, job);
  }

  template <typename M>
  void Say(const M& message) {
    ASSERT_TRUE(schedule_.Send(message).ok());
    scheduler_.RunUntilIdle();
  }

  // Rank 0 holds the one parameter, the last rank the loss of the one microbatch.
  void Vote(int rank) {
    proto::Vote vote;
    vote.set_rank(rank);
    vote.set_round(heard_[0].starts.back().round());
    vote.set_finite(true);
    if (rank == 0) {
      auto* node = vote.add_norm_nodes();
      node->set_num_leaves(1);
      node->set_sum(9);
    }
    if (rank == kRanks - 1) {
      auto* loss = vote.add_losses();
      loss->set_loss_sum(8);
      loss->set_num_tokens(4);
    }
    Say(vote);
  }
  void Done(int rank) {
    proto::StepDone done;
    done.set_step(heard_[0].commits.back().step());
    done.set_rank(rank);
    Say(done);
  }
  void Shard(int rank, int64_t step) {
    proto::CheckpointDone done;
    done.set_step(step);
    done.set_rank(rank);
    Say(done);
  }
  // The disk answers at once. With an export the checkpoint goes alone.
  void Opened(const std::string& exported = "export") {
    Say(FoldersOpened{CheckpointFolders{.checkpoint = "folder", .exported = exported}});
  }
  void Step() {
    for (int rank = 0; rank < kRanks; ++rank) Vote(rank);
    for (int rank = 0; rank < kRanks; ++rank) Done(rank);
  }
  // What the schedule waits for, as `troupe status --why` has it.
  std::string Waits() {
    const auto waits = scheduler_.waits().Snapshot();
    if (waits.empty()) return "";
    return fmt::format("{} from {} in step {}", waits[0].owed, waits[0].from, waits[0].step);
  }

  ManualClock clock_;
  Scheduler scheduler_;
  TrainOptions options_{};
  Followed followed_{};
  std::array<Heard, kRanks> heard_{};
  ScheduleActor::SelfRef schedule_{};
  std::vector<std::string> downs_{};
};

TEST_F(ScheduleActorTest, CommitsAStepWhenAllHaveVotedAndNamesWhoIsMissing) {
  Begin();
  EXPECT_EQ(Waits(), "step: votes from ranks (missing: 0, 1, 2 of 3) in step 1");
  Vote(1);
  Vote(0);
  EXPECT_EQ(Waits(), "step: votes from ranks (missing: 2 of 3) in step 1");
  EXPECT_TRUE(heard_[0].commits.empty());
  Vote(2);
  ASSERT_EQ(heard_[2].commits.size(), 1U);
  EXPECT_EQ(heard_[2].commits[0].gradient_factor(), 0.25) << "sums become means over 4 tokens";
  EXPECT_EQ(Waits(),
            "optimizer: words that it is done from ranks (missing: 0, 1, 2 of 3) in step 1");
  Done(2);
  Done(0);
  EXPECT_EQ(heard_[0].starts.size(), 1U) << "rank 1 still updates";
  Done(1);
  ASSERT_EQ(heard_[0].starts.size(), 2U);
  EXPECT_EQ(heard_[0].starts[1].first_sample(), 4);
  Step();
  EXPECT_EQ(followed_.ended, "ok after step 2");
  EXPECT_EQ(Waits(), "");
}

TEST_F(ScheduleActorTest, AnOrderHoldsForTheStepsThatStartFromThenOn) {
  options_.steps = 3;
  Begin();
  Say(OrderChosen{2});
  Step();
  Step();
  Step();
  ASSERT_EQ(heard_[1].starts.size(), 3U);
  EXPECT_EQ(heard_[1].starts[0].order(), 0);
  EXPECT_EQ(heard_[1].starts[1].order(), 2);
  EXPECT_EQ(heard_[1].starts[2].order(), 2);
  EXPECT_THAT(followed_.steps, ElementsAre(1, 2, 3));
}

TEST_F(ScheduleActorTest, ARankThatAnswersTwiceEndsTheJob) {
  Begin();
  Vote(1);
  Vote(1);
  EXPECT_THAT(downs_, ElementsAre(HasSubstr("rank 1 answered where no answer of it was due")));
}

TEST_F(ScheduleActorTest, AVoteOfARankThatIsNotThereEndsTheJob) {
  Begin();
  Vote(kRanks);
  EXPECT_THAT(downs_, ElementsAre(HasSubstr("rank 3 answered")));
}

TEST_F(ScheduleActorTest, LayersMayMoveOnlyAfterACheckpointIsCommittedAndBeforeTheLastStep) {
  options_.checkpoint_every = 1;
  options_.steps = 3;
  Begin();
  Step();
  EXPECT_EQ(Waits(), "checkpoint: folders from the disk in step 1");
  EXPECT_TRUE(heard_[1].checkpoints.empty());
  Opened();
  ASSERT_EQ(heard_[1].checkpoints.size(), 1U);
  EXPECT_EQ(heard_[1].checkpoints[0].directory(), "folder");
  EXPECT_EQ(heard_[1].checkpoints[0].hf_directory(), "export");
  EXPECT_EQ(heard_[1].checkpoints[0].step(), 1);
  Shard(2, 1);
  Shard(0, 1);
  EXPECT_EQ(Waits(), "checkpoint: shards from ranks (missing: 1 of 3) in step 1");
  Shard(1, 1);
  EXPECT_EQ(Waits(), "checkpoint: commit from the disk in step 1");
  EXPECT_EQ(followed_.committed.at(0).steps_left, 2);
  EXPECT_EQ(followed_.committed.at(0).shards.size(), kRanks);
  Say(ShardsCommitted{});
  Step();
  Opened();
  for (int rank = 0; rank < kRanks; ++rank) Shard(rank, 2);
  EXPECT_EQ(followed_.committed.at(1).steps_left, 1);
  Say(ShardsCommitted{.moves = true});
  EXPECT_THAT(followed_.opened, ElementsAre(1, 2));
  EXPECT_EQ(followed_.ended, "ok after step 2") << "it goes on elsewhere";
}

TEST_F(ScheduleActorTest, StepsGoOnBesideACheckpointAndTheNextOneWaitsForIt) {
  options_.checkpoint_every = 2;
  options_.steps = 5;
  options_.checkpoint_at_end = true;
  Begin();
  Step();
  Step();
  Opened("");
  EXPECT_EQ(heard_[1].checkpoints.size(), 1U);
  EXPECT_EQ(heard_[1].starts.size(), 3U) << "step 3 has begun";
  Step();
  Shard(0, 2);
  Step();
  EXPECT_THAT(followed_.opened, ElementsAre(2)) << "the checkpoint of step 4 waits";
  EXPECT_EQ(heard_[1].starts.size(), 4U);
  EXPECT_EQ(Waits(), "checkpoint: shards from ranks (missing: 1, 2 of 3) in step 2");
  Shard(1, 2);
  Shard(2, 2);
  EXPECT_EQ(followed_.committed.at(0).progress.step, 2);
  Say(ShardsCommitted{});
  EXPECT_THAT(followed_.opened, ElementsAre(2, 4));
  Opened("");
  EXPECT_EQ(heard_[1].starts.size(), 5U);
  for (int rank = 0; rank < kRanks; ++rank) Shard(rank, 4);
  Step();
  EXPECT_EQ(followed_.steps.back(), 5);
  Say(ShardsCommitted{});
  EXPECT_THAT(followed_.opened, ElementsAre(2, 4, 5));
  Opened("");
  for (int rank = 0; rank < kRanks; ++rank) Shard(rank, 5);
  EXPECT_EQ(followed_.ended, "") << "the last one is not yet committed";
  Say(ShardsCommitted{});
  EXPECT_EQ(followed_.ended, "ok after step 5");
}

TEST_F(ScheduleActorTest, TheEndWaitsForTheOpenCheckpoint) {
  options_.checkpoint_every = 1;
  options_.steps = 3;
  Begin();
  Step();
  Opened("");
  Say(CancelTraining{.checkpoint = false});
  Step();
  EXPECT_EQ(followed_.ended, "");
  for (int rank = 0; rank < kRanks; ++rank) Shard(rank, 1);
  Say(ShardsCommitted{});
  EXPECT_EQ(followed_.ended, "ok after step 2");
}

// What was sound is kept, for the run that goes on from it.
TEST_F(ScheduleActorTest, AStepThatFailsBesideACheckpointEndsTheJobWhenThatIsCommitted) {
  options_.checkpoint_every = 1;
  options_.steps = 3;
  Begin();
  Step();
  Opened("");
  for (int rank = 0; rank < kRanks; ++rank) {
    proto::Vote vote;
    vote.set_rank(rank);
    vote.set_round(heard_[0].starts.back().round());
    Say(vote);  // without a loss
  }
  EXPECT_EQ(followed_.ended, "");
  for (int rank = 0; rank < kRanks; ++rank) Shard(rank, 1);
  EXPECT_EQ(followed_.committed.size(), 1U);
  EXPECT_EQ(followed_.ended, "");
  Say(ShardsCommitted{});
  EXPECT_THAT(followed_.ended, HasSubstr("no vote holds the loss of microbatch 0"));
  EXPECT_THAT(followed_.ended, HasSubstr("after step 1"));
}

TEST_F(ScheduleActorTest, AShardThatFailsBesideAStepEndsTheJob) {
  options_.checkpoint_every = 1;
  options_.steps = 3;
  Begin();
  Step();
  Opened("");
  Vote(0);
  Shard(0, 1);
  Shard(1, 1);
  proto::CheckpointDone failed;
  failed.set_step(1);
  failed.set_rank(2);
  failed.set_error("the disk is full");
  failed.set_error_code(static_cast<int>(ErrorCode::kOutOfSpace));
  Say(failed);
  EXPECT_EQ(followed_.ended, "rank 2: checkpoint of step 1: the disk is full after step 1");
  Vote(1);
  EXPECT_EQ(Waits(), "");
}

TEST_F(ScheduleActorTest, AFailedShardEndsTheJobWithItsRank) {
  options_.checkpoint_every = 1;
  Begin();
  Step();
  Opened();
  Shard(0, 1);
  proto::CheckpointDone failed;
  failed.set_step(1);
  failed.set_rank(1);
  failed.set_error("the disk is full");
  failed.set_error_code(static_cast<int>(ErrorCode::kOutOfSpace));
  Say(failed);
  Shard(2, 1);
  EXPECT_EQ(followed_.ended, "rank 1: checkpoint of step 1: the disk is full after step 1");
  EXPECT_TRUE(followed_.committed.empty());
}

TEST_F(ScheduleActorTest, FoldersThatCannotBeMadeEndTheJob) {
  options_.checkpoint_every = 1;
  Begin();
  Step();
  Say(FoldersOpened{MakeError(ErrorCode::kOutOfSpace, "the disk is full")});
  EXPECT_EQ(followed_.ended, "the disk is full after step 1");
  EXPECT_TRUE(heard_[0].checkpoints.empty());
  EXPECT_EQ(Waits(), "");
}

TEST_F(ScheduleActorTest, ACommitThatFailsEndsTheJob) {
  options_.checkpoint_every = 1;
  Begin();
  Step();
  Opened();
  for (int rank = 0; rank < kRanks; ++rank) Shard(rank, 1);
  EXPECT_EQ(followed_.ended, "");
  Say(ShardsCommitted{MakeError(ErrorCode::kOutOfSpace, "the disk is full")});
  EXPECT_EQ(followed_.ended, "the disk is full after step 1");
  EXPECT_EQ(heard_[0].starts.size(), 1U) << "no step begins";
}

TEST_F(ScheduleActorTest, WhoCancelsBeforeTheFirstStepHasEnded) {
  Spawn();
  Say(CancelTraining{});
  EXPECT_EQ(followed_.ended, "ok after step 0");
  Say(BeginTraining{});
  EXPECT_TRUE(heard_[0].starts.empty());
}

// Who cancels while the disk works gets the checkpoint that is being made, and no other.
TEST_F(ScheduleActorTest, ACancelWaitsForTheOpenCheckpoint) {
  options_.checkpoint_every = 1;
  Begin();
  Step();
  Say(CancelTraining{});
  EXPECT_EQ(followed_.ended, "");
  Opened();
  for (int rank = 0; rank < kRanks; ++rank) Shard(rank, 1);
  Say(ShardsCommitted{});
  EXPECT_EQ(followed_.ended, "ok after step 1");
  EXPECT_THAT(followed_.opened, ElementsAre(1));
}

TEST_F(ScheduleActorTest, ACheckpointIsDueWhenSoManySecondsHavePassedSinceTheLast) {
  options_.steps = 6;
  options_.checkpoint_every_seconds = 10;
  options_.checkpoint_at_end = false;
  const auto pass = [this](int64_t ms) { clock_.AdvanceMs(ms); };
  const auto save = [&] {
    Opened();
    for (int rank = 0; rank < kRanks; ++rank) Shard(rank, followed_.opened.back());
    pass(4000);  // the disk takes its time
    Say(ShardsCommitted{});
  };
  Begin();
  pass(9999);
  Step();
  EXPECT_TRUE(followed_.opened.empty());
  pass(1);
  Step();
  EXPECT_THAT(followed_.opened, ElementsAre(2));
  save();
  pass(9999);
  Step();
  pass(2);
  Step();
  EXPECT_THAT(followed_.opened, ElementsAre(2, 4)) << "counted from the commit";
  save();
  Step();
  pass(3'600'000);
  Step();
  EXPECT_THAT(followed_.opened, ElementsAre(2, 4)) << "the last step's is the end's";
  EXPECT_EQ(followed_.ended, "ok after step 6");
}

// Killed while it sampled: no step runs again, what comes after the last one does.
TEST_F(ScheduleActorTest, ARunWhoseStepsAreDoneDoesWhatComesAfterThem) {
  options_.steps = 4;
  options_.checkpoint_at_end = true;
  options_.evaluate_every = 4;
  options_.evaluate.rounds = 1;
  options_.sample.prompt = {5};
  options_.sample.tokens = 1;
  options_.sample.seq_len = 8;
  Spawn();
  Say(BeginTraining{{.step = 4}});
  ASSERT_EQ(heard_[0].starts.size(), 1U);
  EXPECT_EQ(heard_[0].starts[0].mode(), proto::STEP_MODE_EVAL);
  for (int rank = 0; rank < kRanks; ++rank) Vote(rank);
  EXPECT_THAT(followed_.evaluated, ElementsAre(4));
  EXPECT_THAT(followed_.opened, ElementsAre(4));
  Say(FoldersOpened{CheckpointFolders{}});
  EXPECT_TRUE(heard_[0].checkpoints.empty()) << "it is committed, and nothing is exported";
  ASSERT_EQ(heard_[0].starts.size(), 2U);
  EXPECT_EQ(heard_[0].starts[1].mode(), proto::STEP_MODE_SAMPLE);
  for (int rank = 0; rank < kRanks; ++rank) {
    proto::Vote vote;
    vote.set_rank(rank);
    vote.set_round(2);
    vote.set_finite(true);
    vote.set_sampled_token(rank == kRanks - 1 ? 17 : -1);
    Say(vote);
  }
  EXPECT_THAT(followed_.sampled, ElementsAre(17));
  EXPECT_THAT(followed_.steps, ElementsAre()) << "no step is left";
  EXPECT_EQ(followed_.ended, "ok after step 4");
}

}  // namespace
}  // namespace troupe
