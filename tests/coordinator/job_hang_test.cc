// Jobs whose ranks are all there and do not get on.
#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "tests/coordinator/harness.h"

namespace troupe {
namespace {

using testing::Harness;
using testing::SmallJob;

class JobHangTest : public ::testing::Test {
 protected:
  static constexpr int kHangMs = 20'000;

  JobHangTest() {
    proto::JobSpec spec = SmallJob(2);
    spec.mutable_resources()->set_hang_seconds(kHangMs / 1000);
    host = h.Join("a", 2);
    job = &h.Submitted(std::move(spec));
    h.Begins(*job, 2);
  }
  void GetsOn(int32_t rank) {
    proto::FromRank progress;
    progress.mutable_progress()->set_step(17);
    progress.mutable_progress()->set_action("Forward of microbatch 3 on stage 1");
    h.Says(*job, rank, progress);
  }
  int Asked() { return h.Orders(host, proto::ToRank::kStatus) / 2; }
  // Rank 0's schedule waits for rank 1.
  void Rank0Answers() {
    proto::FromRank news;
    auto* edge = news.mutable_waits()->add_edges();
    edge->set_waiter("schedule");
    edge->set_owed("step: votes");
    edge->set_from("ranks (missing: 1 of 2)");
    edge->add_from_ranks(1);
    edge->set_waited_ms(1'000'000);
    h.Says(*job, 0, news);
  }
  void Rank1Answers(int64_t ran_ms) {
    proto::FromRank news;
    auto* edge = news.mutable_waits()->add_edges();
    edge->set_waiter("rank 1");
    edge->set_owed("the end of Forward of microbatch 3 on stage 1");
    edge->set_from("its compute stream");
    edge->set_waited_ms(ran_ms);
    h.Says(*job, 1, news);
  }
  std::string Ends() {
    for (int rank : {0, 1}) h.Exits(*job, rank, 0, SIGKILL);
    EXPECT_EQ(job->summary().exit_code(), 5);
    return job->summary().reason();
  }

  Harness h;
  HostId host = 0;
  JobLife* job = nullptr;
};

TEST_F(JobHangTest, AJobThatStandsStillEndsWithTheRootOfItsWaits) {
  h.AdvanceMs(kHangMs - 1000);
  GetsOn(1);
  h.AdvanceMs(kHangMs - 1000);
  EXPECT_EQ(Asked(), 0) << "it got on";
  h.AdvanceMs(1100);
  EXPECT_EQ(Asked(), 1);
  Rank0Answers();
  Rank1Answers(kHangMs + 50);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 1);
  EXPECT_EQ(Ends(),
            "nothing has moved for 20 s (resources.hang_seconds = 20): rank 1 waits for the end of "
            "Forward of microbatch 3 on stage 1 from its compute stream for 20 s");
}

TEST_F(JobHangTest, WhatHasNotWaitedAsLongIsWaitedFor) {
  h.AdvanceMs(kHangMs);
  Rank0Answers();
  Rank1Answers(kHangMs - 5000);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 0);
  h.AdvanceMs(4900);
  EXPECT_EQ(Asked(), 1);
  h.AdvanceMs(200);
  EXPECT_EQ(Asked(), 2);
  GetsOn(1);
  Rank0Answers();
  Rank1Answers(kHangMs + 100);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 0) << "it got on while it was asked";
  h.AdvanceMs(kHangMs);
  EXPECT_EQ(Asked(), 3);
}

TEST_F(JobHangTest, ARankThatDoesNotAnswerIsTheRoot) {
  h.AdvanceMs(kHangMs);
  Rank0Answers();
  h.AdvanceMs(kHangMs / 4 - 100);
  EXPECT_EQ(h.Commands(host, proto::ToAgent::kKill), 0);
  h.AdvanceMs(200);
  EXPECT_EQ(Ends(),
            "nothing has moved for 25 s (resources.hang_seconds = 20): rank 1 (host a, pid 4712) "
            "does not answer");
}

TEST_F(JobHangTest, AStopHasALimitOfItsOwn) {
  job->Cancel({});
  h.AdvanceMs(kHangMs + 100);
  EXPECT_EQ(Asked(), 0);
}

}  // namespace
}  // namespace troupe
