// Those who follow a job, early and late, and the recorder that its result waits for.
#include "coordinator/job_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "tests/coordinator/harness.h"

namespace troupe {
namespace {

using testing::Harness;
using ::testing::HasSubstr;
using testing::RecordingFollower;
using testing::SmallJob;

class JobHistoryTest : public ::testing::Test {
 protected:
  Harness h;
};

// Records nothing; the end is recorded when the test says so.
struct SlowRecorder : JobRecorder {
  explicit SlowRecorder(std::function<void()>& recorded, Status begun = {})
      : recorded(recorded), begun(std::move(begun)) {}
  Status Open(const proto::SubmitRequest&) override { return {}; }
  void Begin(const std::vector<std::string>&, std::function<void(Status)> done) override {
    done(begun);
  }
  void Planned(const std::vector<proto::Parallelism>&) override {}
  void RankSaid(int32_t, bool, const proto::FromRank&) override {}
  void RankLogged(int32_t, bool, const std::string&) override {}
  void StateChanged(const proto::JobSummary&) override {}
  void Ended(const proto::JobResult& result,
             std::function<void(const proto::JobResult&)> done) override {
    recorded = [result, done = std::move(done)] { done(result); };
  }
  std::function<void()>& recorded;
  const Status begun;
};

TEST_F(JobHistoryTest, TheResultIsToldWhenTheRunDirectoryIsWhole) {
  std::function<void()> recorded;
  h.new_recorder = [&](const std::string&, const auto&) {
    return std::make_unique<SlowRecorder>(recorded);
  };
  const HostId host = h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  h.Finishes(job, 0);
  h.Exits(job, 0, 0);
  EXPECT_TRUE(job.ended());
  EXPECT_TRUE(h.state.hosts.at(host).used_slots.empty()) << "the next job need not wait";
  EXPECT_EQ(h.FollowerOf(job).Result(), nullptr);
  RecordingFollower late;
  EXPECT_NE(job.Follow(&late), 0) << "the result is still to come";
  ASSERT_TRUE(recorded);
  recorded();
  h.scheduler.RunUntilIdle();
  ASSERT_NE(h.FollowerOf(job).Result(), nullptr);
  EXPECT_TRUE(h.FollowerOf(job).finished);
  EXPECT_NE(late.Result(), nullptr);
  EXPECT_TRUE(late.finished);
}

TEST_F(JobHistoryTest, ADiskThatStandsStillHoldsUpNoResultForGood) {
  std::function<void()> recorded;
  h.new_recorder = [&](const std::string&, const auto&) {
    return std::make_unique<SlowRecorder>(recorded);
  };
  h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  h.Finishes(job, 0);
  h.Exits(job, 0, 0);
  h.AdvanceMs(JobLife::kRecordMs - 1);
  EXPECT_EQ(h.FollowerOf(job).Result(), nullptr);
  h.AdvanceMs(1);
  ASSERT_NE(h.FollowerOf(job).Result(), nullptr);
  EXPECT_TRUE(h.FollowerOf(job).finished);
  const size_t told = h.FollowerOf(job).events.size();
  recorded();
  h.scheduler.RunUntilIdle();
  EXPECT_EQ(h.FollowerOf(job).events.size(), told) << "told once";
}

TEST_F(JobHistoryTest, WhoFollowsALongJobLateHearsItsStateAndTheNewestSteps) {
  h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  constexpr int64_t kSteps = JobHistory::kEventsMax + 10;
  for (int64_t step = 1; step <= kSteps; ++step) h.Step(job, step, 1.0);
  RecordingFollower late;
  job.Follow(&late);
  ASSERT_LE(late.events.size(), JobHistory::kEventsMax + 1);
  ASSERT_GT(late.events.size(), 1000u);
  EXPECT_LE(job.history().num_bytes(), JobHistory::kBytesMax);
  EXPECT_EQ(late.events.front().state().state(), proto::JOB_STATE_RUNNING);
  EXPECT_EQ(late.events.back().rank().message().metrics().step(), kSteps);
}

TEST_F(JobHistoryTest, NoRankStartsBeforeTheFolderIsTaken) {
  std::function<void()> recorded;
  h.new_recorder = [&](const std::string&, const auto&) {
    return std::make_unique<SlowRecorder>(
        recorded, MakeError(ErrorCode::kInvalidSpec, "--run-dir /r is in use"));
  };
  const HostId host = h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kSpawn), 0);
  ASSERT_TRUE(recorded);
  recorded();
  h.scheduler.RunUntilIdle();
  EXPECT_EQ(job.summary().exit_code(), 2);
  EXPECT_EQ(job.summary().reason(), "--run-dir /r is in use");
  EXPECT_TRUE(h.state.hosts.at(host).used_slots.empty());
}

TEST_F(JobHistoryTest, WhatEndedLongAgoTakesLittle) {
  h.Join("a", 1);
  for (int i = 0; i < 1100; ++i) {
    JobLife& job = h.Submitted(SmallJob(1));
    h.Begins(job, 1);
    for (int64_t step = 1; step <= 100; ++step) h.Step(job, step, 1.0);
    h.Finishes(job, 0);
    h.Exits(job, 0, 0);
  }
  EXPECT_EQ(h.state.jobs.size(), 1000u);
  EXPECT_FALSE(h.state.jobs.contains(100));
  RecordingFollower late;
  h.state.jobs.at(101)->Follow(&late);
  ASSERT_NE(late.Result(), nullptr) << "the result stays";
  EXPECT_LE(late.events.size(), JobHistory::kShrunkEventsMax + 1);
}

TEST_F(JobHistoryTest, WhoFollowsLateHearsTheSame) {
  h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  h.Step(job, 1, 5.0);
  RecordingFollower in_time;
  const FollowerId follower = job.Follow(&in_time);
  EXPECT_EQ(in_time.events.size(), h.FollowerOf(job).events.size());
  job.Unfollow(follower);
  h.Finishes(job, 0);
  h.Exits(job, 0, 0);
  EXPECT_FALSE(in_time.finished);
  RecordingFollower late;
  EXPECT_EQ(job.Follow(&late), 0);
  EXPECT_TRUE(late.finished);
  // Whoever follows from the submission on saw the queue only after it had been left.
  EXPECT_EQ(late.events.size(), h.FollowerOf(job).events.size());
  EXPECT_EQ(late.Result()->exit_code(), 0);
}

}  // namespace
}  // namespace troupe
