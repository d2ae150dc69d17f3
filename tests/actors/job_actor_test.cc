#include "actors/job_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/rank_stages.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

// What the job actor said to the schedule.
struct Heard {
  std::vector<int64_t> begun{};
  std::vector<size_t> orders{};
  std::vector<Result<CheckpointFolders>> opened{};
  std::vector<ShardsCommitted> committed{};
};

class FakeSchedule : public Actor<FakeSchedule, BeginTraining, CancelTraining, OrderChosen,
                                  FoldersOpened, ShardsCommitted> {
 public:
  explicit FakeSchedule(Heard& heard) : heard_(heard) {}
  Status On(BeginTraining begin) {
    heard_.begun.push_back(begin.progress.step);
    return {};
  }
  Status On(CancelTraining) { return {}; }
  Status On(OrderChosen chosen) {
    heard_.orders.push_back(chosen.order);
    return {};
  }
  Status On(FoldersOpened opened) {
    heard_.opened.push_back(std::move(opened.folders));
    return {};
  }
  Status On(ShardsCommitted committed) {
    heard_.committed.push_back(std::move(committed));
    return {};
  }

 private:
  Heard& heard_;
};

class JobActorTest : public ::testing::Test {
 protected:
  void Spawn(std::optional<JobCheckpoints> checkpoints, std::optional<Replanner> replanner = {}) {
    JobOptions options{.prompt = "ab", .ignore_label = 0};
    options.say = [this](const proto::FromRank& news) { said_.push_back(news); };
    options.on_end = [this](JobEnd end) { ends_.push_back(std::move(end)); };
    schedule_ = scheduler_.Spawn<FakeSchedule>({.name = "schedule"}, std::ref(heard_));
    job_ = scheduler_.Spawn<JobActor>({.name = "job"}, std::move(options), std::move(checkpoints),
                                      std::move(replanner), stream_);
  }
  template <typename M>
  void Say(M message) {
    ASSERT_TRUE(job_.Send(std::move(message)).ok());
    scheduler_.RunUntilIdle();
  }

  Scheduler scheduler_{};
  InlineStream stream_{scheduler_};
  Heard heard_{};
  std::vector<proto::FromRank> said_{};
  std::vector<JobEnd> ends_{};
  TrainingRef schedule_{};
  JobActor::SelfRef job_{};
};

TEST_F(JobActorTest, AJobThatKeepsNothingHasNoFolders) {
  Spawn(std::nullopt);
  Say(BeginJob{.schedule = schedule_, .progress = {.step = 3}});
  EXPECT_EQ(heard_.begun, std::vector<int64_t>{3});
  Say(OpenFolders{4});
  ASSERT_EQ(heard_.opened.size(), 1U);
  ASSERT_TRUE(heard_.opened[0].ok());
  EXPECT_EQ(heard_.opened[0]->checkpoint + heard_.opened[0]->exported, "");
  Say(TrainingEnded{.end = MakeError(ErrorCode::kFailed, "it failed"), .last_step = 5});
  ASSERT_EQ(ends_.size(), 1U);
  EXPECT_EQ(ends_[0].end.error().message, "it failed");
  EXPECT_EQ(ends_[0].last_step, 5);
}

TEST_F(JobActorTest, NewsGoOut) {
  Spawn(std::nullopt);
  Say(BeginJob{.schedule = schedule_});
  StepCommitted step;
  step.metrics.set_step(1);
  step.metrics.set_loss(3);
  Say(std::move(step));
  proto::EvalMetrics evaluated;
  evaluated.set_val_loss(2.5);
  Say(std::move(evaluated));
  Say(TokensSampled{{'c', 255}});
  ASSERT_EQ(said_.size(), 3U);
  EXPECT_EQ(said_[0].metrics().step(), 1);
  EXPECT_EQ(said_[1].eval().val_loss(), 2.5);
  EXPECT_EQ(said_[2].sampled().prompt(), "ab");
  EXPECT_EQ(said_[2].sampled().continuation(), "c\xff");
}

TEST_F(JobActorTest, WhereNoLabelCountsThatIsSaid) {
  Spawn(std::nullopt);
  Say(BeginJob{.schedule = schedule_});
  StepCommitted step;
  step.metrics.set_step(7);
  Say(std::move(step));
  proto::EvalMetrics evaluated;
  evaluated.set_step(7);
  Say(std::move(evaluated));
  ASSERT_EQ(said_.size(), 4U);
  EXPECT_EQ(said_[0].metrics().step(), 7);
  EXPECT_EQ(said_[1].happening().level(), "warning");
  EXPECT_EQ(said_[1].happening().text(),
            "step 7 has no label that counts (data.ignore_label = 0): skipped, no update");
  EXPECT_EQ(said_[2].eval().step(), 7);
  EXPECT_EQ(said_[3].happening().text(),
            "the evaluation after step 7 has no label that counts (data.ignore_label = 0): no "
            "validation loss");
}

TEST_F(JobActorTest, CheckpointsThatCannotBeSetAsideEndTheJobBeforeItsFirstStep) {
  const testing::TemporaryFolder folder;
  testing::RankStages ranks(testing::SmallSpec());
  // A file stands where the folder should.
  proto::StartRank start = ranks.Start(folder.Write("run", "no folder"));
  start.set_owner("job 4, epoch 1");
  Spawn(JobCheckpoints(SystemFiles(), start, ranks.plan()));
  Say(BeginJob{.schedule = schedule_, .progress = {.step = 2}});
  EXPECT_TRUE(heard_.begun.empty());
  ASSERT_EQ(ends_.size(), 1U);
  EXPECT_THAT(ends_[0].end.error().message, HasSubstr("run"));
  EXPECT_EQ(ends_[0].last_step, 2);
}

TEST_F(JobActorTest, AFailedJobLeavesNoOpenCheckpoint) {
  const testing::TemporaryFolder folder;
  testing::RankStages ranks(testing::SmallSpec());
  const proto::StartRank start = ranks.Start(folder / "run");
  Spawn(JobCheckpoints(SystemFiles(), start, ranks.plan()));
  Say(BeginJob{.schedule = schedule_});
  Say(OpenFolders{1});
  ASSERT_TRUE(heard_.opened.at(0).ok()) << heard_.opened[0].error().message;
  const std::string open = heard_.opened[0]->checkpoint;
  EXPECT_TRUE(SystemFiles().Exists(open));
  Say(CommitShards{.progress = {.step = 1}});
  ASSERT_EQ(heard_.committed.size(), 1U);
  EXPECT_FALSE(heard_.committed[0].status.ok()) << "no shard was written";
  Say(TrainingEnded{.end = heard_.committed[0].status.error(), .last_step = 1});
  EXPECT_FALSE(SystemFiles().Exists(open));
  EXPECT_EQ(ends_.size(), 1U);
}

}  // namespace
}  // namespace troupe
