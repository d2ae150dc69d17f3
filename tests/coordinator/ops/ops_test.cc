// The ops, each by its request and reply.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <optional>

#include "runtime/base/awake_clock.h"
#include "tests/coordinator/harness.h"

namespace troupe {
namespace {

using testing::Harness;
using ::testing::HasSubstr;
using testing::SmallJob;

TEST(SubmitTest, ARetryFindsTheSameJob) {
  Harness h;
  const auto first = h.TrySubmit(SmallJob(2), "id-1");
  const auto again = h.TrySubmit(SmallJob(2), "id-1");
  const auto other = h.TrySubmit(SmallJob(2), "id-2");
  EXPECT_EQ(first->job(), again->job());
  EXPECT_TRUE(again->deduplicated());
  EXPECT_EQ(again->run_directory(), first->run_directory());
  EXPECT_NE(other->job(), first->job());
  EXPECT_EQ(h.state.jobs.size(), 2u);
}

TEST(SubmitTest, ARetryWhileTheFirstIsStillPlannedGetsTheSameAnswer) {
  Harness h;
  proto::SubmitRequest request;
  request.set_submission_id("id");
  *request.mutable_spec() = SmallJob(1);
  std::vector<proto::SubmitReply> replies;
  for (int i = 0; i < 2; ++i) {
    Submit(h.state, h.seams, {}, request,
           [&](const Result<proto::SubmitReply>& reply) { replies.push_back(*reply); });
  }
  EXPECT_TRUE(replies.empty()) << "planning is not the loop's work";
  h.scheduler.RunUntilIdle();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].job(), replies[1].job());
  EXPECT_FALSE(replies[0].deduplicated());
  EXPECT_TRUE(replies[1].deduplicated());
  EXPECT_EQ(h.state.jobs.size(), 1u);
}

TEST(SubmitTest, ARunDirectoryHasOneJob) {
  Harness h;
  proto::SubmitRequest request;
  *request.mutable_spec() = SmallJob(1);
  request.set_run_directory(h.folder / "mine");
  const auto first = h.TrySubmit(request);
  ASSERT_TRUE(first.ok());
  const auto second = h.TrySubmit(request);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(second.error().message, HasSubstr("mine is job 1's"));
  h.state.jobs.at(first->job())->Cancel({});
  EXPECT_TRUE(h.TrySubmit(request).ok()) << "after its end";
}

TEST(SubmitTest, NumbersOutliveTheCoordinator) {
  Harness h;
  const std::string folder = h.state.options.state_directory;
  EXPECT_EQ(*FirstJob(SystemFiles(), folder), 1u);
  (void)h.TrySubmit(SmallJob(1));
  (void)h.TrySubmit(SmallJob(1));
  EXPECT_EQ(*FirstJob(SystemFiles(), folder), 3u) << "so no run directory is given out twice";
  ASSERT_TRUE(WriteFileAtomically(SystemFiles(), folder + "/next_job", "-4").ok());
  EXPECT_EQ(FirstJob(SystemFiles(), folder).error().code, ErrorCode::kCorrupt);
}

TEST(SubmitTest, ACoordinatorThatEndsAnswersWhoWaits) {
  Harness h;
  proto::SubmitRequest request;
  *request.mutable_spec() = SmallJob(1);
  std::optional<Error> error;
  Submit(h.state, h.seams, {}, request,
         [&](const Result<proto::SubmitReply>& reply) { error = reply.error(); });
  RefuseSubmissions(h.state);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUnavailable);
  h.scheduler.RunUntilIdle();
  EXPECT_TRUE(h.state.jobs.empty());
}

TEST(SubmitTest, ARetryWithAnotherSpecIsToldWhatDiffers) {
  Harness h;
  const auto first = h.TrySubmit(SmallJob(2), "id-1");
  ASSERT_TRUE(first.ok()) << first.error().message;
  proto::JobSpec other = SmallJob(2);
  other.mutable_train()->set_steps(30);
  const auto refused = h.TrySubmit(other, "id-1");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(refused.error().message,
              HasSubstr("submission id-1 is job 1, of another spec: modified: "
                        "lr_scheduler.decay_steps: 20 -> 30; modified: train.steps: 20 -> 30"));
  EXPECT_EQ(h.state.jobs.size(), 1u);
}

TEST(SubmitTest, RefusesWhatTheCommandLineRefuses) {
  Harness h;
  const std::pair<const char*, void (*)(proto::JobSpec&)> cases[] = {
      {"optimizer.betas", [](auto& spec) { spec.mutable_optimizer()->add_betas(0.5); }},
      {"resources.workers", [](auto& spec) { spec.mutable_resources()->set_workers(0); }},
      {"name = ../../x", [](auto& spec) { spec.set_name("../../x"); }},
      {"name has 40000000 bytes", [](auto& spec) { spec.set_name(std::string(40'000'000, 'x')); }},
      {"kind = serve", [](auto& spec) { spec.set_kind("serve"); }},
      {"optimizer.name = sgd", [](auto& spec) { spec.mutable_optimizer()->set_name("sgd"); }},
      {"spec_version = 2", [](auto& spec) { spec.set_spec_version(2); }},
      {"optimizer.eps = nan", [](auto& spec) { spec.mutable_optimizer()->set_eps(std::nan("")); }},
      {"data.train = text.txt", [](auto& spec) { spec.mutable_data()->set_train("text.txt"); }},
  };
  for (const auto& [said, spoil] : cases) {
    proto::JobSpec spec = SmallJob(2);
    spoil(spec);
    const auto reply = h.TrySubmit(spec);
    ASSERT_FALSE(reply.ok()) << said;
    EXPECT_EQ(ExitCode(reply.error().code), 2) << said;
    EXPECT_THAT(reply.error().message, HasSubstr(said));
    EXPECT_LT(reply.error().message.size(), 1000u);
  }
  EXPECT_TRUE(h.state.jobs.empty());
}

TEST(SubmitTest, MakesARunDirectoryUnderItsState) {
  Harness h;
  const auto reply = h.TrySubmit(SmallJob(1));
  EXPECT_EQ(reply->run_directory(), h.folder / "runs/small-1");
  EXPECT_TRUE(std::filesystem::is_directory(reply->run_directory()));
}

TEST(SubmitTest, RefusesWhatCannotBeLaidOut) {
  Harness h;
  const auto deep = h.TrySubmit(SmallJob(9));  // of 8 layers
  ASSERT_FALSE(deep.ok());
  EXPECT_THAT(deep.error().message, HasSubstr("parallelism.pp"));
  EXPECT_FALSE(h.TrySubmit(proto::JobSpec()).ok());
  EXPECT_TRUE(h.state.jobs.empty());
}

TEST(CancelTest, NamesTheJobThatDoesNotExist) {
  Harness h;
  proto::CancelRequest request;
  request.set_job(7);
  const auto reply = Cancel(h.state, request);
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(reply.error().message, "there is no job 7: `troupe ps` lists them");
}

TEST(CancelTest, SaysTheStateThatFollows) {
  Harness h;
  JobLife& job = h.Submitted(SmallJob(2));
  proto::CancelRequest request;
  request.set_job(job.id());
  EXPECT_EQ(Cancel(h.state, request)->state(), proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(Cancel(h.state, request)->state(), proto::JOB_STATE_CANCELLED) << "again";
}

TEST(ListJobsTest, ListsJobsAndHosts) {
  Harness h;
  h.Join("a", 3);
  h.Submitted(SmallJob(2));
  h.Submitted(SmallJob(2));
  const auto reply = ListJobs(h.state);
  ASSERT_EQ(reply.jobs_size(), 2);
  EXPECT_EQ(reply.jobs(0).layout(), "pp2");
  EXPECT_EQ(reply.jobs(0).steps(), 20);
  EXPECT_EQ(reply.jobs(1).state(), proto::JOB_STATE_QUEUED);
  ASSERT_EQ(reply.hosts_size(), 1);
  EXPECT_EQ(reply.hosts(0).slots(), 3);
  EXPECT_EQ(reply.hosts(0).slots_used(), 2);
}

class WhyTest : public ::testing::Test {
 protected:
  // The answer, once it is there.
  void Ask(bool why) {
    proto::GetStatusRequest request;
    request.set_job(job_.id());
    request.set_why(why);
    GetStatus(h_.state, request, [this](const Result<proto::GetStatusReply>& r) { reply_ = *r; });
  }
  void Says(int32_t rank, const std::string& waiter) {
    proto::FromRank waits;
    waits.mutable_waits()->add_edges()->set_waiter(waiter);
    h_.Says(job_, rank, waits);
  }

  Harness h_;
  const HostId host_ = h_.Join("a", 2);
  JobLife& job_ = h_.Submitted(SmallJob(2));
  std::optional<proto::GetStatusReply> reply_{};
};

TEST_F(WhyTest, TheAnswerIsOfNowAndComesWhenEveryRankHasSpoken) {
  h_.Begins(job_, 2);
  Ask(/*why=*/false);
  ASSERT_TRUE(reply_);
  EXPECT_EQ(h_.Orders(host_, proto::ToRank::kStatus), 0);
  reply_.reset();
  Ask(/*why=*/true);
  EXPECT_EQ(h_.Orders(host_, proto::ToRank::kStatus), 2);
  Says(1, "executor of rank 1");
  EXPECT_FALSE(reply_);
  Says(0, "executor of rank 0");
  ASSERT_TRUE(reply_);
  ASSERT_EQ(reply_->waits_size(), 2);
  EXPECT_EQ(reply_->waits(1).waiter(), "executor of rank 1");
  reply_.reset();
  Ask(/*why=*/true);
  Says(0, "later");
  Says(1, "later");
  ASSERT_EQ(reply_->waits_size(), 2) << "nothing of the first answer is left";
  EXPECT_EQ(reply_->waits(0).waiter(), "later");
}

TEST_F(WhyTest, ARankThatDoesNotAnswerIsPartOfTheAnswer) {
  h_.Begins(job_, 2);
  Ask(/*why=*/true);
  Says(0, "executor of rank 0");
  h_.AdvanceMs(JobLife::kWaitsMs);
  ASSERT_TRUE(reply_);
  ASSERT_EQ(reply_->waits_size(), 2);
  EXPECT_THAT(reply_->waits(1).from(), HasSubstr("rank 1 (host a, pid 4712)"));
  EXPECT_EQ(reply_->waits(1).owed(), "an answer to this question");
}

TEST_F(WhyTest, AJobThatEndsAnswersAtOnceAndAfterItsEndNobodyWaits) {
  h_.Begins(job_, 2);
  Ask(/*why=*/true);
  h_.Exits(job_, 0, 1);
  h_.Exits(job_, 1, 0, SIGKILL);
  ASSERT_TRUE(reply_);
  EXPECT_EQ(reply_->waits_size(), 0);
  reply_.reset();
  Ask(/*why=*/true);
  ASSERT_TRUE(reply_);
  EXPECT_EQ(reply_->waits_size(), 0);
  EXPECT_EQ(reply_->summary().state(), proto::JOB_STATE_FAILED);
}

TEST(GetStatusTest, NamesTheJobThatDoesNotExist) {
  Harness h;
  proto::GetStatusRequest request;
  request.set_job(99);
  std::optional<Error> error;
  GetStatus(h.state, request,
            [&](const Result<proto::GetStatusReply>& reply) { error = reply.error(); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kNotFound);
}

TEST(AttendTest, HostsOfOneNameGetNumbers) {
  Harness h;
  h.Join("node", 1);
  const HostId second = h.Join("node", 1);
  EXPECT_EQ(h.state.hosts.at(second).name, "node-2");
}

TEST(AttendTest, RefusesSlotsThatNobodyHas) {
  Harness h;
  testing::RecordingAgent port;
  proto::Join join;
  for (const int slots : {0, -1, 5000}) {
    join.set_slots(slots);
    const auto joined = JoinHost(h.state, h.seams, join, &port);
    ASSERT_FALSE(joined.ok()) << slots;
    EXPECT_EQ(joined.error().code, ErrorCode::kInvalidSpec);
  }
  EXPECT_TRUE(h.state.hosts.empty());
}

TEST(AttendTest, AHeartbeatIsAnsweredAndKeepsTheHost) {
  Harness h;
  const HostId host = h.Join("a", 1);
  proto::FromAgent beat;
  beat.mutable_heartbeat();
  for (int i = 0; i < 20; ++i) {
    h.AdvanceMs(500);
    AgentSaid(h.state, h.seams, host, beat);
    DropSilentHosts(h.state, h.seams);
  }
  EXPECT_TRUE(h.state.hosts.contains(host));
  EXPECT_EQ(h.AgentOf(host).commands.size(), 20u);
}

TEST(AttendTest, ASilentHostIsLostAndItsStreamEnded) {
  Harness h;
  const HostId host = h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  h.AdvanceMs(h.state.options.dead_after_ms);
  DropSilentHosts(h.state, h.seams);
  EXPECT_FALSE(job.ended());
  h.AdvanceMs(1);
  DropSilentHosts(h.state, h.seams);
  EXPECT_EQ(job.summary().exit_code(), 5);
  EXPECT_THAT(job.summary().reason(), HasSubstr("host agent a was silent for 30000 ms"));
  EXPECT_TRUE(h.AgentOf(host).closed) << "else an agent that wakes up would never join again";
  EXPECT_TRUE(h.state.hosts.empty());
}

// Its clock is the daemon's: while the process stands still, so does the silence.
TEST(AttendTest, NobodyIsSilentWhileTheCoordinatorItselfStandsStill) {
  Harness h;
  AwakeClock awake(h.clock);
  Scheduler scheduler({.clock = &awake});
  const Seams seams{scheduler, SystemFiles(), h.stream, h.stream};
  testing::RecordingAgent port;
  proto::Join join;
  join.set_slots(1);
  const HostId host = JoinHost(h.state, seams, join, &port)->host;
  h.clock.AdvanceMs(600'000);
  DropSilentHosts(h.state, seams);
  EXPECT_TRUE(h.state.hosts.contains(host)) << "its heartbeats still wait to be read";
  for (int i = 0; i < 4 * 30; ++i) {
    h.clock.AdvanceMs(250);
    DropSilentHosts(h.state, seams);
  }
  EXPECT_FALSE(h.state.hosts.contains(host));
}

TEST(AttendTest, MessagesFindTheirJob) {
  Harness h;
  const HostId host = h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  proto::FromAgent message;
  message.mutable_rank_said()->set_job(job.id());
  message.mutable_rank_said()->set_epoch(1);
  message.mutable_rank_said()->mutable_message()->mutable_metrics()->set_step(4);
  AgentSaid(h.state, h.seams, host, message);
  EXPECT_EQ(job.summary().step(), 4);
  message.mutable_rank_said()->mutable_message()->mutable_metrics()->set_step(5);
  AgentSaid(h.state, h.seams, h.Join("b", 1), message);
  EXPECT_EQ(job.summary().step(), 4) << "an agent speaks for its own ranks alone";
  message.mutable_rank_said()->set_job(99);
  AgentSaid(h.state, h.seams, host, message);
  proto::FromAgent exited;
  exited.mutable_rank_exited()->set_job(job.id());
  exited.mutable_rank_exited()->set_epoch(1);
  exited.mutable_rank_exited()->set_exit_code(1);
  AgentSaid(h.state, h.seams, host, exited);
  EXPECT_EQ(job.state(), proto::JOB_STATE_FAILED);
}

}  // namespace
}  // namespace troupe
