#include "coordinator/job_life.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "actors/plan/job_plan.h"
#include "tests/coordinator/harness.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using testing::Harness;
using ::testing::HasSubstr;
using testing::RecordingFollower;
using testing::SmallJob;

class JobLifeTest : public ::testing::Test {
 protected:
  Harness h;
};

TEST_F(JobLifeTest, GoesFromQueueToSuccess) {
  JobLife& job = h.Submitted(SmallJob(2));
  EXPECT_THAT(job.summary().reason(), HasSubstr("2 workers need as many slots, 0 of 0 are free"));
  const HostId host = h.Join("a", 2);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kSpawn), 2);
  h.Hello(job, 0);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kPeers), 0) << "before every address is known";
  h.Hello(job, 1);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kPeers), 2);
  h.Ready(job, 1);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kBegin), 0) << "before every rank is ready";
  h.Ready(job, 0);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kBegin), 1);
  EXPECT_EQ(h.AgentOf(host).commands.back().tell().rank(), 0);
  h.Step(job, 1, 5.0);
  h.Finishes(job, 0);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kShutDown), 2);
  h.Finishes(job, 1);
  h.Exits(job, 1, 0);
  EXPECT_FALSE(job.ended()) << "while a rank still lives";
  h.Exits(job, 0, 0);
  EXPECT_THAT(
      h.FollowerOf(job).States(),
      ElementsAre(proto::JOB_STATE_QUEUED, proto::JOB_STATE_STARTING, proto::JOB_STATE_RUNNING,
                  proto::JOB_STATE_DRAINING, proto::JOB_STATE_SUCCEEDED));
  ASSERT_NE(h.FollowerOf(job).Result(), nullptr);
  EXPECT_EQ(h.FollowerOf(job).Result()->exit_code(), 0);
  EXPECT_TRUE(h.FollowerOf(job).finished);
  EXPECT_TRUE(h.state.hosts.at(host).used_slots.empty());
}

TEST_F(JobLifeTest, PeersCarryAddressesAndHosts) {
  const HostId a = h.Join("a", 1);
  h.Join("b", 1);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Hello(job, 1);
  h.Hello(job, 0);
  const auto& peers = h.AgentOf(a).commands.back().tell().message().peers();
  ASSERT_EQ(peers.peers_size(), 2);
  EXPECT_EQ(peers.peers(0).host(), "a");
  EXPECT_EQ(peers.peers(1).host(), "b");
  EXPECT_EQ(peers.peers(1).address(), "1");
}

TEST_F(JobLifeTest, AKilledRankIsTheHeadlineWithItsPlaceInTheStep) {
  const HostId host = h.Join("a", 3);
  JobLife& job = h.Submitted(SmallJob(3));
  h.Begins(job, 3);
  proto::FromRank progress;
  progress.mutable_progress()->set_step(17);
  progress.mutable_progress()->set_action("forward of microbatch 3 on stage 2");
  h.Says(job, 2, progress);
  // Its neighbour notices first: that is a consequence, and waits for the cause.
  h.FinishesWith(job, 1, ErrorCode::kPeerDown, "rank 2 does not answer");
  h.AdvanceMs(JobLife::kCauseWaitMs / 2);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 0);
  h.Exits(job, 2, 0, SIGKILL);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 1);
  h.Exits(job, 0, 0, SIGKILL);
  h.Exits(job, 1, 0, SIGKILL);
  EXPECT_EQ(job.state(), proto::JOB_STATE_FAILED);
  EXPECT_EQ(job.summary().exit_code(), 5);
  EXPECT_EQ(
      job.summary().reason(),
      "rank 2 (host a, pid 4713) was killed by signal 9 (SIGKILL) at step 17 during forward "
      "of microbatch 3 on stage 2: by somebody else, or by the kernel where memory was short");
}

TEST_F(JobLifeTest, ALostPeerWithoutACauseIsTheCauseAfterAWhile) {
  h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Begins(job, 2);
  h.FinishesWith(job, 1, ErrorCode::kPeerDown, "rank 0 does not answer");
  h.AdvanceMs(JobLife::kCauseWaitMs + 1);
  h.Exits(job, 0, 0, SIGKILL);
  h.Exits(job, 1, 0);
  EXPECT_EQ(job.summary().exit_code(), 5);
  EXPECT_THAT(job.summary().reason(), HasSubstr("rank 1 (host a, pid 4712): rank 0 does not"));
}

TEST_F(JobLifeTest, ALostPeerIsNamedWithTheOneThatLostIt) {
  h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Begins(job, 2);
  proto::FromRank message;
  message.mutable_finished()->set_error_code(static_cast<int32_t>(ErrorCode::kPeerDown) + 1);
  message.mutable_finished()->set_error("rank 0 was lost: its connection broke");
  message.mutable_finished()->set_lost_peer(0);
  h.Says(job, 1, message);
  h.AdvanceMs(JobLife::kCauseWaitMs + 1);
  for (int rank : {0, 1}) h.Exits(job, rank, 0, SIGKILL);
  EXPECT_EQ(job.summary().exit_code(), 5);
  EXPECT_EQ(job.summary().reason(),
            "rank 0 (host a, pid 4711) was lost before the first step, says rank 1 (host a, pid "
            "4712): rank 0 was lost: its connection broke");
}

TEST_F(JobLifeTest, AnUnreachablePeerWaitsForItsCauseToo) {
  h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  for (int rank : {0, 1}) h.Hello(job, rank);
  h.FinishesWith(job, 1, ErrorCode::kUnavailable, "rank 0 cannot be reached");
  h.AdvanceMs(JobLife::kCauseWaitMs / 2);
  h.Exits(job, 0, 0, SIGKILL);
  h.Exits(job, 1, 0, SIGKILL);
  EXPECT_EQ(job.summary().exit_code(), 5) << "4 is the coordinator's";
  EXPECT_EQ(
      job.summary().reason(),
      "rank 0 (host a, pid 4711) was killed by signal 9 (SIGKILL) while starting: by somebody "
      "else, or by the kernel where memory was short");
}

// ---- silence ---------------------------------------------------------------------------------

class JobSilenceTest : public JobLifeTest {
 protected:
  JobSilenceTest() {
    proto::JobSpec spec = SmallJob(3);
    spec.mutable_resources()->set_peer_silence_seconds(20);
    host = h.Join("a", 3);
    job = &h.Submitted(std::move(spec));
    h.Begins(*job, 3);
    proto::FromRank progress;
    progress.mutable_progress()->set_step(17);
    progress.mutable_progress()->set_action("forward of microbatch 3 on stage 2");
    h.Says(*job, 2, progress);
  }
  void Silent(int32_t rank, int64_t silent_ms, bool stopped = true, uint64_t epoch = 1) {
    proto::FromAgent message;
    message.mutable_rank_silent()->set_job(job->id());
    message.mutable_rank_silent()->set_epoch(epoch);
    message.mutable_rank_silent()->set_rank(rank);
    message.mutable_rank_silent()->set_silent_ms(silent_ms);
    message.mutable_rank_silent()->set_stopped(stopped);
    AgentSaid(h.state, h.seams, host, message);
  }
  std::vector<std::string> Happenings() {
    std::vector<std::string> texts;
    for (const auto& event : h.FollowerOf(*job).events) {
      if (event.rank().message().has_happening()) {
        texts.push_back(event.rank().message().happening().text());
      }
    }
    return texts;
  }

  HostId host = 0;
  JobLife* job = nullptr;
};

TEST_F(JobSilenceTest, ASilentRankIsToldAtOnceAndLostAfterItsTime) {
  Silent(2, 2000);
  EXPECT_THAT(Happenings(),
              ElementsAre("rank 2 (host a, pid 4713) has said nothing for 2 s at step 17 during "
                          "forward of microbatch 3 on stage 2: it is stopped (SIGSTOP); the job "
                          "waits up to 20 s for it (resources.peer_silence_seconds)"));
  h.AdvanceMs(5000);
  Silent(2, 7000);
  EXPECT_EQ(Happenings().size(), 1u) << "once is enough";
  h.AdvanceMs(12'000);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 0);
  h.AdvanceMs(1100);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 1);
  for (int rank : {0, 1, 2}) h.Exits(*job, rank, 0, SIGKILL);
  EXPECT_EQ(job->summary().exit_code(), 5);
  EXPECT_EQ(job->summary().reason(),
            "rank 2 (host a, pid 4713) has said nothing for 20 s at step 17 during forward of "
            "microbatch 3 on stage 2: it is stopped (SIGSTOP)");
}

TEST_F(JobSilenceTest, ARankThatSpeaksAgainGoesOn) {
  Silent(2, 2000, /*stopped=*/false);
  h.AdvanceMs(10'000);
  Silent(2, 0);
  EXPECT_THAT(Happenings(),
              ElementsAre(HasSubstr("its process is there, its thread does not get on"),
                          "rank 2 (host a, pid 4713) speaks again: the job goes on"));
  h.AdvanceMs(100'000);
  EXPECT_EQ(job->state(), proto::JOB_STATE_RUNNING);
}

TEST_F(JobSilenceTest, TheSilentPeerIsTheCauseOfItsNeighboursLoss) {
  Silent(2, 2000);
  proto::FromRank message;
  message.mutable_finished()->set_error_code(static_cast<int32_t>(ErrorCode::kPeerDown) + 1);
  message.mutable_finished()->set_error("rank 2 was lost: its connection broke");
  message.mutable_finished()->set_lost_peer(2);
  h.Says(*job, 1, message);
  h.AdvanceMs(JobLife::kCauseWaitMs + 1);
  for (int rank : {0, 1, 2}) h.Exits(*job, rank, 0, SIGKILL);
  EXPECT_THAT(job->summary().reason(), HasSubstr("rank 2 (host a, pid 4713) has said nothing for"));
}

TEST_F(JobSilenceTest, WhatCannotBeSilentChangesNothing) {
  Silent(7, 2000);
  Silent(-1, 2000);
  Silent(2, 2000, true, /*epoch=*/3);
  Silent(1, 0);
  h.AdvanceMs(100'000);
  EXPECT_EQ(job->state(), proto::JOB_STATE_RUNNING);
  EXPECT_TRUE(Happenings().empty());
}

TEST_F(JobSilenceTest, ARankThatCannotBeKilledFreesTheClientAndKeepsItsSlot) {
  job->Cancel({.checkpoint = false, .kill = true});
  h.Exits(*job, 0, 0, SIGKILL);
  h.Exits(*job, 2, 0, SIGKILL);
  h.AdvanceMs(JobLife::kKillMs - 1000);
  EXPECT_FALSE(job->ended());
  h.AdvanceMs(1100);
  EXPECT_EQ(job->state(), proto::JOB_STATE_FAILED);
  EXPECT_EQ(job->summary().exit_code(), 5);
  EXPECT_EQ(job->summary().reason(),
            "15 s after it was killed there is still rank 1 (host a, pid 4712): its slot stays "
            "taken");
  EXPECT_TRUE(h.FollowerOf(*job).finished);
  EXPECT_THAT(h.state.hosts.at(host).used_slots, ElementsAre(1));
  for (int i = 0; i < 2; ++i) h.Exits(*job, 1, 0, SIGKILL);
  EXPECT_TRUE(h.state.hosts.at(host).used_slots.empty());
  EXPECT_EQ(job->state(), proto::JOB_STATE_FAILED);
}

TEST_F(JobLifeTest, RanksThatAllLostTheirPeersDoNotSucceed) {
  h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Begins(job, 2);
  for (int rank : {0, 1}) h.FinishesWith(job, rank, ErrorCode::kPeerDown, "the link was cut");
  for (int rank : {0, 1}) h.Exits(job, rank, 0);  // all gone before kCauseWaitMs
  EXPECT_EQ(job.state(), proto::JOB_STATE_FAILED);
  EXPECT_EQ(job.summary().exit_code(), 5);
  EXPECT_THAT(job.summary().reason(), HasSubstr("rank 0 (host a, pid 4711): the link was cut"));
}

TEST_F(JobLifeTest, WhatIsMissingInMidRunIsNotTheSpec) {
  const auto exit_code_of = [](bool began, ErrorCode code) {
    Harness h;
    h.Join("alpha", 2);
    JobLife& job = h.Submitted(SmallJob(2));
    if (began) h.Begins(job, 2);
    h.FinishesWith(job, 0, code, "/runs/a: No such file or directory");
    for (const int rank : {0, 1}) h.Exits(job, rank, 1);
    return job.summary().exit_code();
  };
  EXPECT_EQ(exit_code_of(false, ErrorCode::kNotFound), 2) << "the tokens, say";
  EXPECT_EQ(exit_code_of(true, ErrorCode::kNotFound), 1);
  EXPECT_EQ(exit_code_of(true, ErrorCode::kInvalidSpec), 2) << "a token beyond the vocabulary, say";
  EXPECT_EQ(exit_code_of(true, ErrorCode::kInfeasible), 3);
}

TEST_F(JobLifeTest, ARanksErrorDecidesTheExitCode) {
  const struct {
    ErrorCode code;
    int exit_code;
  } cases[] = {{ErrorCode::kOutOfSpace, 1},
               {ErrorCode::kInvalidSpec, 2},
               {ErrorCode::kInfeasible, 3},
               {ErrorCode::kDeadlineExceeded, 5},
               {ErrorCode::kGateFailed, 6}};
  h.Join("a", 1);
  for (const auto& c : cases) {
    JobLife& job = h.Submitted(SmallJob(1));
    h.Begins(job, 1);
    h.FinishesWith(job, 0, c.code, "it is so");
    h.Exits(job, 0, 0, SIGKILL);
    EXPECT_EQ(job.summary().exit_code(), c.exit_code) << ErrorCodeName(c.code);
    EXPECT_EQ(job.summary().reason(), "rank 0 (host a, pid 4711): it is so");
  }
}

TEST_F(JobLifeTest, ARankThatLeavesByItselfFails) {
  h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  proto::RankExited exited;
  exited.set_job(job.id());
  exited.set_epoch(1);
  exited.set_exit_code(127);
  exited.add_last_lines("troupe-rank cannot be run");
  job.RankExited(exited);
  EXPECT_EQ(job.summary().exit_code(), 5);
  EXPECT_EQ(job.summary().reason(),
            "rank 0 (host a) exited with 127 while starting: troupe-rank cannot be run");
}

TEST_F(JobLifeTest, AnAgentThatKilledItsRankSaysWhy) {
  h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  proto::RankExited exited;
  exited.set_job(job.id());
  exited.set_epoch(1);
  exited.set_signal(SIGKILL);
  exited.set_cause("a control frame of 4294967295 bytes exceeds 16777216");
  job.RankExited(exited);
  EXPECT_EQ(job.summary().reason(),
            "rank 0 (host a, pid 4711) was killed by its host agent before the first step: a "
            "control frame of 4294967295 bytes exceeds 16777216");
}

TEST_F(JobLifeTest, ARankOfAHostThatIsGoneKeepsItsName) {
  h.Join("a", 1);
  const HostId b = h.Join("b", 1);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Begins(job, 2);
  proto::FromRank message;
  message.mutable_finished()->set_error_code(static_cast<int32_t>(ErrorCode::kPeerDown) + 1);
  message.mutable_finished()->set_error("it was lost");
  message.mutable_finished()->set_lost_peer(1);
  h.Says(job, 0, message);
  h.state.hosts.erase(b);
  h.AdvanceMs(JobLife::kCauseWaitMs + 1);
  h.Exits(job, 0, 0, SIGKILL);
  h.AdvanceMs(JobLife::kKillMs + 1);
  EXPECT_THAT(job.summary().reason(), HasSubstr("there is still rank 1 (host b, pid 4712)"));
}

TEST_F(JobLifeTest, ALostHostTakesItsRanksAndTheRestIsKilled) {
  const HostId a = h.Join("a", 1);
  const HostId b = h.Join("b", 1);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Begins(job, 2);
  HostGone(h.state, b, "its agent's connection ended");
  EXPECT_EQ(h.Commands(a, proto::ToAgent::kKill), 1);
  EXPECT_FALSE(job.ended()) << "rank 0 has not exited";
  h.Exits(job, 0, 0, SIGKILL);
  EXPECT_EQ(job.summary().exit_code(), 5);
  EXPECT_EQ(job.summary().reason(),
            "rank 1 (host b, pid 4712) was lost with its host: its agent's connection ended");
}

TEST_F(JobLifeTest, AHelloAfterAnotherRanksHostWasLostChangesNothing) {
  const HostId a = h.Join("a", 1);
  const HostId b = h.Join("b", 1);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Hello(job, 1);
  HostGone(h.state, b, "its connection ended");
  h.Hello(job, 0);
  h.Ready(job, 0);
  EXPECT_EQ(h.Orders(a, proto::ToRank::kPeers), 0) << "it failed already";
  h.Exits(job, 0, 0, SIGKILL);
  EXPECT_EQ(job.summary().exit_code(), 5);
  EXPECT_THAT(job.summary().reason(),
              HasSubstr("rank 1 (host b, pid 4712) was lost with its host"));
}

TEST_F(JobLifeTest, WhatIsSaidOnceCountsOnce) {
  const HostId host = h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  for (int i = 0; i < 2; ++i) h.Begins(job, 2);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kPeers), 2);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kBegin), 1);
  for (int i = 0; i < 2; ++i) h.Finishes(job, 0);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kShutDown), 2);
  h.Exits(job, 0, 0);
  h.Finishes(job, 1);
  for (int i = 0; i < 2; ++i) h.Exits(job, 1, 0);
  EXPECT_EQ(job.state(), proto::JOB_STATE_SUCCEEDED);
  // After the end nothing moves, not even the summary.
  h.Step(job, 99, 1.0);
  h.FinishesWith(job, 0, ErrorCode::kFailed, "late");
  HostGone(h.state, host, "its connection ended");
  EXPECT_EQ(job.state(), proto::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.summary().step(), 0);
}

TEST_F(JobLifeTest, RanksOfDifferentBuildsDoNotTrain) {
  const HostId host = h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Hello(job, 0, "one");
  h.Hello(job, 1, "two");
  EXPECT_EQ(h.Orders(host, proto::ToRank::kPeers), 0);
  h.Exits(job, 0, 0, SIGKILL);
  h.Exits(job, 1, 0, SIGKILL);
  EXPECT_THAT(job.summary().reason(), HasSubstr("runs another build than rank 0"));
}

TEST_F(JobLifeTest, ARankThatNeverSaysHelloIsNamed) {
  const HostId host = h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Hello(job, 0);
  h.AdvanceMs(JobLife::kHelloMs + 1);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 1);
  h.Exits(job, 0, 0, SIGKILL);
  h.Exits(job, 1, 0, SIGKILL);
  EXPECT_EQ(job.summary().exit_code(), 5);
  EXPECT_EQ(job.summary().reason(),
            "rank 1 (host a) did not say Hello within 60000 ms of its start");
}

TEST_F(JobLifeTest, RanksThatDoNotEndAreKilled) {
  h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  h.Finishes(job, 0);
  h.AdvanceMs(JobLife::kDrainMs + 1);
  h.Exits(job, 0, 0, SIGKILL);
  EXPECT_EQ(job.state(), proto::JOB_STATE_FAILED);
  EXPECT_THAT(job.summary().reason(), HasSubstr("not every rank ended within 10000 ms"));
}

TEST_F(JobLifeTest, MessagesOfAnotherEpochChangeNothing) {
  h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  h.Step(job, 9, 1.0, /*epoch=*/2);
  h.Exits(job, 0, 1, 0, /*epoch=*/2);
  h.Says(job, 99, proto::FromRank());
  EXPECT_EQ(job.state(), proto::JOB_STATE_RUNNING);
  EXPECT_EQ(job.summary().step(), 0);
}

// ---- cancelling ------------------------------------------------------------------------------

TEST_F(JobLifeTest, CancelInTheQueue) {
  JobLife& job = h.Submitted(SmallJob(2));
  job.Cancel({});
  EXPECT_EQ(job.state(), proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(job.summary().exit_code(), 130);
  const HostId host = h.Join("a", 2);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kSpawn), 0);
}

TEST_F(JobLifeTest, CancelWhileStarting) {
  const HostId host = h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Hello(job, 0);
  job.Cancel({});
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 1);
  h.Exits(job, 0, 0, SIGKILL);
  EXPECT_EQ(job.state(), proto::JOB_STATE_CANCELLED);
}

TEST_F(JobLifeTest, CancelWhileRunningKeepsACheckpoint) {
  const HostId host = h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Begins(job, 2);
  job.Cancel({});
  EXPECT_EQ(job.state(), proto::JOB_STATE_DRAINING);
  ASSERT_EQ(h.Orders(host, proto::ToRank::kCancel), 1);
  EXPECT_TRUE(h.AgentOf(host).commands.back().tell().message().cancel().checkpoint());
  proto::FromRank committed;
  committed.mutable_checkpoint()->set_directory("/run/checkpoints/step-00000004");
  h.Says(job, 0, committed);
  h.Finishes(job, 0, {}, /*cancelled=*/true);
  h.Finishes(job, 1);
  h.Exits(job, 0, 0);
  h.Exits(job, 1, 0);
  EXPECT_EQ(job.state(), proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(h.FollowerOf(job).Result()->checkpoint(), "/run/checkpoints/step-00000004");
  EXPECT_EQ(h.FollowerOf(job).Result()->exit_code(), 130);
}

TEST_F(JobLifeTest, ACleanStopThatTakesTooLongBecomesAKill) {
  const HostId host = h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  job.Cancel({});
  h.AdvanceMs(JobLife::kCancelMs + 1);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 1);
  h.Exits(job, 0, 0, SIGKILL);
  EXPECT_EQ(job.state(), proto::JOB_STATE_CANCELLED);
}

TEST_F(JobLifeTest, ACleanStopThatGetsOnIsWaitedFor) {
  const HostId host = h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  job.Cancel({});
  proto::FromRank action;
  action.mutable_progress()->set_action("Forward");
  proto::FromRank step;
  step.mutable_metrics()->set_step(1);
  proto::FromRank committed;
  committed.mutable_checkpoint()->set_step(1);
  for (const proto::FromRank& news : {action, step, committed}) {
    h.AdvanceMs(JobLife::kCancelMs - 1);
    h.Says(job, 0, news);
  }
  proto::FromRank memory;
  memory.mutable_memory();
  h.AdvanceMs(JobLife::kCancelMs - 1);
  h.Says(job, 0, memory);  // a rank that stands still says that too
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 0);
  h.AdvanceMs(2);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 1);
}

TEST_F(JobLifeTest, TheMachinesWishPreempts) {
  const HostId host = h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  job.Cancel({.preempted = true, .cause = "SIGTERM at the coordinator"});
  job.Cancel({.preempted = true, .cause = "SIGTERM at host agent a"});
  EXPECT_EQ(h.Orders(host, proto::ToRank::kCancel), 1) << "one clean stop, whoever else asks";
  proto::FromRank committed;
  committed.mutable_checkpoint()->set_step(4);
  committed.mutable_checkpoint()->set_directory("/run/checkpoints/step-00000004");
  h.Says(job, 0, committed);
  h.Finishes(job, 0, {}, /*cancelled=*/true);
  h.Exits(job, 0, 0);
  EXPECT_TRUE(job.ended());
  const proto::JobResult& result = *h.FollowerOf(job).Result();
  EXPECT_EQ(result.state(), proto::JOB_STATE_PREEMPTED);
  EXPECT_EQ(result.exit_code(), 143);
  EXPECT_EQ(result.reason(), "SIGTERM at the coordinator") << "the first cause";
  EXPECT_EQ(result.checkpoint_step(), 4);
}

TEST_F(JobLifeTest, APersonsWishOutweighsTheMachines) {
  h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  job.Cancel({.preempted = true, .cause = "SIGTERM at the coordinator"});
  job.Cancel({});
  h.Finishes(job, 0, {}, /*cancelled=*/true);
  h.Exits(job, 0, 0);
  EXPECT_EQ(job.state(), proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(job.summary().reason(), "");
}

TEST_F(JobLifeTest, AKillThatFollowsACleanStopKeepsItsCause) {
  const HostId host = h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(1));
  h.Begins(job, 1);
  job.Cancel({.preempted = true, .cause = "SIGUSR1 at host agent a"});
  job.Cancel({.kill = true, .cause = "SIGINT at the coordinator"});
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 1);
  h.Exits(job, 0, 0, SIGKILL);
  EXPECT_EQ(job.state(), proto::JOB_STATE_PREEMPTED);
  EXPECT_EQ(job.summary().reason(), "SIGUSR1 at host agent a");
}

TEST_F(JobLifeTest, AnAgentToldToEndStopsItsJobsAndTakesNoOthers) {
  const HostId a = h.Join("a", 1);
  const HostId b = h.Join("b", 1);
  JobLife& on_a = h.Submitted(SmallJob(1));
  JobLife& on_b = h.Submitted(SmallJob(1));
  JobLife& queued = h.Submitted(SmallJob(1));
  h.Begins(on_a, 1);
  h.Begins(on_b, 1);
  proto::FromAgent asked;
  asked.mutable_stop_asked()->set_signal("SIGUSR1");
  asked.mutable_stop_asked()->set_preempted(true);
  AgentSaid(h.state, h.seams, a, asked);
  h.Finishes(on_a, 0, {}, /*cancelled=*/true);
  h.Exits(on_a, 0, 0);
  EXPECT_EQ(on_a.state(), proto::JOB_STATE_PREEMPTED);
  EXPECT_EQ(on_a.summary().reason(), "SIGUSR1 at host agent a");
  EXPECT_EQ(on_b.state(), proto::JOB_STATE_RUNNING);
  EXPECT_EQ(queued.state(), proto::JOB_STATE_QUEUED) << "its slot is free, but on its way out";
  h.Finishes(on_b, 0);
  h.Exits(on_b, 0, 0);
  EXPECT_EQ(queued.state(), proto::JOB_STATE_STARTING);
  EXPECT_EQ(h.Commands(b, proto::ToAgent::kSpawn), 2);
}

TEST_F(JobLifeTest, ACoordinatorToldToEndStopsAllAndTellsAll) {
  const HostId host = h.Join("a", 1);
  JobLife& running = h.Submitted(SmallJob(1));
  JobLife& queued = h.Submitted(SmallJob(1));
  h.Begins(running, 1);
  StopJobs(h.state, {.preempted = true, .cause = "SIGTERM at the coordinator"});
  EXPECT_EQ(queued.state(), proto::JOB_STATE_PREEMPTED);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kCancel), 1);
  EXPECT_FALSE(AllJobsTold(h.state));
  const auto late = h.TrySubmit(SmallJob(1));
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
  h.Finishes(running, 0, {}, /*cancelled=*/true);
  h.Exits(running, 0, 0);
  EXPECT_TRUE(AllJobsTold(h.state));
  EXPECT_EQ(h.FollowerOf(running).Result()->state(), proto::JOB_STATE_PREEMPTED);
  EXPECT_TRUE(h.FollowerOf(running).finished);
}

TEST_F(JobLifeTest, WhatDyingRanksSayAfterAKillIsNoFailure) {
  h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  h.Begins(job, 2);
  job.Cancel({.checkpoint = false, .kill = true});
  h.Exits(job, 0, 0, SIGKILL);
  h.FinishesWith(job, 1, ErrorCode::kPeerDown, "rank 0 has gone");
  h.Exits(job, 1, 0);
  EXPECT_EQ(job.state(), proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(job.summary().exit_code(), 130);
}

// ---- auto and moved layers --------------------------------------------------------------------

// Measured by every rank on the same hardware; the second was disturbed.
void HelloWithCosts(Harness& h, JobLife& job, int32_t rank, int64_t layer_ns, uint64_t epoch = 1) {
  proto::FromRank message;
  message.mutable_hello()->set_pid(4711 + rank);
  message.mutable_hello()->set_build("b");
  message.mutable_hello()->set_cpu("a CPU");
  const StageCost layer{layer_ns, layer_ns, layer_ns};
  *message.mutable_hello()->mutable_costs() =
      ToProto({.layer = layer, .embedding = {}, .head = layer, .hop_ns = 1000});
  h.Says(job, rank, message, epoch);
  h.scheduler.RunUntilIdle();  // what the planner decides
}

TEST_F(JobLifeTest, AutoIsDecidedWhenEveryRankHasMeasured) {
  const HostId host = h.Join("a", 2);
  proto::JobSpec spec = SmallJob(2);
  spec.mutable_parallelism()->set_schedule("auto");
  JobLife& job = h.Submitted(spec);
  EXPECT_EQ(h.AgentOf(host).commands[0].spawn().start().spec().parallelism().schedule(), "auto");
  HelloWithCosts(h, job, 0, 1'000'000);
  EXPECT_EQ(h.Orders(host, proto::ToRank::kPeers), 0);
  HelloWithCosts(h, job, 1, 9'000'000);
  const auto& peers = h.AgentOf(host).commands.back().tell().message().peers();
  ASSERT_GT(peers.orders_size(), 1);
  EXPECT_NE(peers.orders(0).schedule(), "auto");
  EXPECT_THAT(peers.reason(), ::testing::StartsWith("schedule auto: "));
  ASSERT_EQ(peers.costs_size(), 2);
  EXPECT_EQ(peers.costs(1).layer().forward_ns(), 1'000'000) << "like hardware takes alike";
  // Every rank makes the same plan of it.
  EXPECT_TRUE(MakeJobPlan(spec, std::vector<proto::Parallelism>(peers.orders().begin(),
                                                                peers.orders().end()))
                  .ok());
}

TEST_F(JobLifeTest, AutoThatFitsNoLimitFailsBySentence) {
  h.Join("a", 2);
  proto::JobSpec spec = SmallJob(2);
  spec.mutable_parallelism()->set_schedule("auto");
  spec.mutable_parallelism()->set_activation_limit(0.5);
  const auto refused = h.TrySubmit(spec);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("parallelism.activation_limit = 0.5"));
}

class MovedLayersTest : public JobLifeTest {
 protected:
  MovedLayersTest() : host_(h.Join("a", 2)), job_(h.Submitted(Moving())) {
    for (int rank : {0, 1}) HelloWithCosts(h, job_, rank, 1'000'000);
    for (int rank : {0, 1}) h.Ready(job_, rank);
    h.Step(job_, 1, 5.0);
  }
  static proto::JobSpec Moving() {
    proto::JobSpec spec = SmallJob(2);
    spec.mutable_parallelism()->set_rebalance(true);
    spec.mutable_checkpoint()->set_every(1);
    return spec;
  }
  void FinishToMove() {
    proto::FromRank message;
    message.mutable_finished()->set_last_step(1);
    message.mutable_finished()->set_checkpoint("/run/checkpoints/step-00000001");
    for (const int layers : {5, 3}) message.mutable_finished()->add_stage_layers(layers);
    h.Says(job_, 0, message);
    h.Finishes(job_, 1, {{1, 99}});
    for (int rank : {0, 1}) h.Exits(job_, rank, 0);
  }
  HostId host_;
  JobLife& job_;
};

TEST_F(MovedLayersTest, TheSameRanksStartAnewFromTheirCheckpoint) {
  FinishToMove();
  EXPECT_EQ(job_.state(), proto::JOB_STATE_STARTING);
  EXPECT_EQ(h.Commands(host_, proto::ToAgent::kSpawn), 4);
  const auto& start = h.AgentOf(host_).commands.back().spawn().start();
  EXPECT_EQ(start.epoch(), 2u);
  EXPECT_FALSE(start.reference_run());
  EXPECT_EQ(start.resume_from(), "/run/checkpoints/step-00000001");
  for (int rank : {0, 1}) HelloWithCosts(h, job_, rank, 1'000'000, /*epoch=*/2);
  const auto& peers = h.AgentOf(host_).commands.back().tell().message().peers();
  ASSERT_EQ(peers.orders_size(), 1);
  EXPECT_THAT(peers.orders(0).stage_layers(), ElementsAre(5, 3));
  for (int rank : {0, 1}) h.Ready(job_, rank, 2);
  EXPECT_EQ(job_.state(), proto::JOB_STATE_RUNNING);
  h.Step(job_, 2, 4.5, 2);
  h.Finishes(job_, 0, {}, false, 2);
  h.Finishes(job_, 1, {}, false, 2);
  for (int rank : {0, 1}) h.Exits(job_, rank, 0, 0, 2);
  EXPECT_EQ(job_.state(), proto::JOB_STATE_SUCCEEDED);
}

TEST_F(MovedLayersTest, ACancelledJobDoesNotStartAnew) {
  job_.Cancel({});
  FinishToMove();
  EXPECT_EQ(job_.state(), proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(h.Commands(host_, proto::ToAgent::kSpawn), 2);
}

TEST_F(JobLifeTest, AHostThatIsLostWhileLayersMoveEndsTheJob) {
  h.Join("a", 1);
  const HostId b = h.Join("b", 1);
  proto::JobSpec spec = SmallJob(2);
  spec.mutable_parallelism()->set_rebalance(true);
  spec.mutable_checkpoint()->set_every(1);
  JobLife& job = h.Submitted(spec);
  for (int rank : {0, 1}) HelloWithCosts(h, job, rank, 1'000'000);
  for (int rank : {0, 1}) h.Ready(job, rank);
  proto::FromRank message;
  message.mutable_finished()->set_checkpoint("/run/checkpoints/step-00000001");
  for (const int layers : {5, 3}) message.mutable_finished()->add_stage_layers(layers);
  h.Says(job, 0, message);
  h.Finishes(job, 1);
  h.Exits(job, 1, 0);
  HostGone(h.state, b, "its connection ended");
  h.Exits(job, 0, 0);
  EXPECT_EQ(job.state(), proto::JOB_STATE_FAILED);
  EXPECT_EQ(job.summary().reason(),
            "the host of rank 1 was lost while layers moved: go on with --resume");
}

TEST_F(MovedLayersTest, ARankThatDiesOnTheWayFailsTheJob) {
  h.Exits(job_, 1, 0, SIGKILL);
  FinishToMove();
  EXPECT_EQ(job_.state(), proto::JOB_STATE_FAILED);
  EXPECT_EQ(job_.summary().exit_code(), 5);
}

}  // namespace
}  // namespace troupe
