// Each invariant fails where a history breaks it, and says how.
#include "tests/simulation/invariants.h"

#include <gtest/gtest.h>

namespace troupe::testing {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

struct InvariantsTest : ::testing::Test {
  // Both stages of job 3, with weights of step 4.
  void Load() {
    for (const int stage : {0, 1}) invariants.StageLoaded(3, 1, stage, 4);
  }
  void Update(int stage, int64_t step, double factor = 0.5, bool apply = true) {
    invariants.StageUpdates(3, 1, stage, {.step = step, .apply = apply, .gradient_factor = factor});
  }
  void Commit(int64_t step) {
    for (const int stage : {0, 1}) Update(stage, step);
  }
  void ExpectHolds() { EXPECT_EQ(invariants.violation(), ""); }

  Invariants invariants;
};

// ---- one commit a step -------------------------------------------------------------------------

TEST_F(InvariantsTest, AHistoryThatBreaksNothingIsNoViolation) {
  Load();
  for (const int64_t step : {5, 6}) {
    Commit(step);
    invariants.StepTold(3, 1, step, 1.5, 1.5);
  }
  invariants.StageLoaded(4, 1, 0, 0);  // another job
  invariants.StageUpdates(4, 1, 0, {.step = 1, .apply = true, .gradient_factor = 0.25});
  ExpectHolds();
}

TEST_F(InvariantsTest, AStageThatCommitsAStepTwice) {
  Load();
  Commit(5);
  ExpectHolds();
  Update(1, 5);
  EXPECT_EQ(invariants.violation(), "job 3.1: stage 1 at step 5 is told to commit step 5");
}

TEST_F(InvariantsTest, AStageThatLeavesAStepOut) {
  Load();
  Update(0, 6);
  EXPECT_EQ(invariants.violation(), "job 3.1: stage 0 at step 4 is told to commit step 6");
}

TEST_F(InvariantsTest, AStepWithTwoFactors) {
  Load();
  Update(0, 5, 0.5);
  ExpectHolds();
  Update(1, 5, 0.25);
  EXPECT_EQ(invariants.violation(), "job 3.1: step 5 is committed twice, with 0.5 and 0.25");
}

TEST_F(InvariantsTest, StagesWithWeightsOfDifferentSteps) {
  invariants.StageLoaded(3, 1, 0, 4);
  invariants.StageLoaded(3, 1, 1, 2);
  EXPECT_EQ(invariants.violation(), "job 3.1: stage 1 was loaded with step 2, stage 0 with step 4");
}

TEST_F(InvariantsTest, AStageThatIsLoadedTwice) {
  Load();
  invariants.StageLoaded(3, 1, 0, 4);
  EXPECT_EQ(invariants.violation(), "stage 0 of job 3.1 was loaded twice");
}

TEST_F(InvariantsTest, AStepThatIsToldBeforeAllHaveCommitted) {
  Load();
  Update(0, 5);
  invariants.StepTold(3, 1, 5, 1.5, 1.5);
  EXPECT_EQ(invariants.violation(), "job 3.1: step 5 is told, and stage 1 stands at 4");
}

TEST_F(InvariantsTest, AStepThatIsToldTwiceOrLeftOut) {
  for (const int64_t told : {5, 7}) {
    invariants = {};
    Load();
    Commit(5);
    invariants.StepTold(3, 1, 5, 1.5, 1.5);
    ExpectHolds();
    invariants.StepTold(3, 1, told, 1.5, 1.5);
    EXPECT_EQ(invariants.violation(),
              "job 3.1: step " + std::to_string(told) + " is told after step 5");
  }
}

TEST_F(InvariantsTest, ARunThatGoesOnWithAnotherStepThanItsWeights) {
  Load();
  Commit(5);
  Commit(6);
  invariants.StepTold(3, 1, 6, 1.5, 1.5);
  EXPECT_EQ(invariants.violation(), "job 3.1: step 6 is told after step 4");
}

TEST_F(InvariantsTest, AnotherLoss) {
  Load();
  Commit(5);
  invariants.StepTold(3, 1, 5, 1.25, 1.5);
  EXPECT_EQ(invariants.violation(), "job 3.1: step 5 has loss 1.25, not 1.5");
}

// ---- no live process without a live agent ------------------------------------------------------

TEST_F(InvariantsTest, AProcessThatOutlivesItsAgent) {
  invariants.LookAtAgentOf({.pid = 2001, .host = 1});
  ExpectHolds();
  invariants.LookAtAgentOf({.pid = 2001, .host = 1, .agent_lives = false});
  EXPECT_EQ(invariants.violation(), "process 2001 lives, its agent on host 1 does not");
}

TEST_F(InvariantsTest, AProcessThatOutlivesItsJobForLong) {
  const SeenProcess with_job{.pid = 2001, .host = 1, .rank = 2, .job = 3};
  SeenProcess without = with_job;
  without.job_lives = false;
  invariants.LookAtJobOf(without, 0);
  invariants.LookAtJobOf(without, Invariants::kOrphanNs);
  invariants.LookAtJobOf(with_job, Invariants::kOrphanNs + 1);  // somebody leads it again
  invariants.LookAtJobOf(without, Invariants::kOrphanNs + 2);
  ExpectHolds();
  invariants.LookAtJobOf(without, 2 * Invariants::kOrphanNs + 3);
  EXPECT_EQ(invariants.violation(), "process 2001 (rank 2 of job 3) lives, its job does not");
}

// ---- no wait past its deadline unsaid ----------------------------------------------------------

struct WaitInvariantTest : InvariantsTest {
  WaitInvariantTest() {
    wait = board.Begin({.waiter = "rank 1",
                        .activity = "Forward",
                        .owed = "activation",
                        .from = "stage 0 (rank 0)",
                        .step = 7,
                        .microbatch = 3,
                        .deadline_ms = 1000});
  }
  // The board's own turn comes, or it does not.
  void At(int64_t at_ns, bool turn) {
    now_ns = at_ns;
    if (turn) wheel.Advance(now_ns);
    invariants.LookAtWaits(2001, board, now_ns);
  }

  int64_t now_ns = 0;
  TimerWheel wheel{0};
  WaitBoard board{wheel, now_ns};
  WaitHandle wait{};
};

constexpr char kPassed[] =
    "the deadline of \"rank 1 waits for microbatch 3 Forward: activation from stage 0 (rank 0)\" "
    "passed 1000 ms ago, and nothing was said";

TEST_F(WaitInvariantTest, ADeadlineThatPassesUnnoticed) {
  At(kSecondNs, /*turn=*/false);
  ExpectHolds();
  At(2 * kSecondNs, /*turn=*/false);
  EXPECT_EQ(invariants.violation(), kPassed);
}

TEST_F(WaitInvariantTest, ADeadlineThatPassesUnsaid) {
  At(2 * kSecondNs, /*turn=*/true);
  EXPECT_EQ(invariants.violation(), kPassed);
}

TEST_F(WaitInvariantTest, ADeadlineOfWhichAnotherProcessSpeaks) {
  invariants.WarningSaid(2002, "rank 1: microbatch 3 Forward: activation from stage 0 (rank 0)");
  At(2 * kSecondNs, /*turn=*/true);
  EXPECT_EQ(invariants.violation(), kPassed);
}

TEST_F(WaitInvariantTest, ADeadlineThatIsSaidIsNoViolation) {
  invariants.WarningSaid(2001, "rank 1: microbatch 3 Forward: activation from stage 0 (rank 0)");
  At(2 * kSecondNs, /*turn=*/true);
  ExpectHolds();
}

// ---- every job ends with its true cause --------------------------------------------------------

const PossibleEnds kKilled{.success = false,
                           .causes = {"rank 1 (host host-1*was killed by signal"}};

TEST_F(InvariantsTest, AnEndThatIsPossibleIsNoViolation) {
  invariants.JobEnded({.job = 3, .succeeded = true, .last_step = 5, .num_steps = 5}, {});
  invariants.JobEnded({.job = 3, .lost = true}, {.loss = true});
  invariants.JobEnded({.job = 3, .reason = "rank 1 (host host-1, pid 7) was killed by signal 9"},
                      kKilled);
  invariants.JobIsOpen(3, 0, Invariants::kJobLimitNs - 1);
  ExpectHolds();
}

TEST_F(InvariantsTest, ACauseThatIsNotTheTrueOne) {
  invariants.JobEnded({.job = 3, .reason = "rank 0 was lost: the link to rank 1"}, kKilled);
  EXPECT_EQ(invariants.violation(),
            "the cause is told as \"rank 0 was lost: the link to rank 1\", not as rank 1 (host "
            "host-1*was killed by signal");
}

TEST_F(InvariantsTest, AFailureThatNothingHasCaused) {
  invariants.JobEnded({.job = 3, .reason = "rank 1 was killed by signal 9"}, {});
  EXPECT_EQ(invariants.violation(),
            "the cause is told as \"rank 1 was killed by signal 9\", not as a success");
}

TEST_F(InvariantsTest, ASuccessWithALostRank) {
  invariants.JobEnded({.job = 3, .succeeded = true, .last_step = 5, .num_steps = 5}, kKilled);
  EXPECT_EQ(invariants.violation(), "job 3 has succeeded all the same");
}

TEST_F(InvariantsTest, ASuccessBeforeTheLastStep) {
  invariants.JobEnded({.job = 3, .succeeded = true, .last_step = 4, .num_steps = 5}, {});
  EXPECT_EQ(invariants.violation(), "job 3 has succeeded at step 4 of 5");
}

TEST_F(InvariantsTest, ACoordinatorThatIsLostByItself) {
  invariants.JobEnded({.job = 3, .lost = true}, {});
  EXPECT_EQ(invariants.violation(), "the coordinator of job 3 was lost");
}

TEST_F(InvariantsTest, AJobThatDoesNotEnd) {
  invariants.JobIsOpen(3, kSecondNs, Invariants::kJobLimitNs + kSecondNs);
  EXPECT_EQ(invariants.violation(), "job 3 has not ended after 600 s");
}

TEST_F(InvariantsTest, TheFirstViolationIsKept) {
  invariants.JobEnded({.job = 3, .lost = true}, {});
  invariants.JobEnded({.job = 4, .lost = true}, {});
  EXPECT_EQ(invariants.violation(), "the coordinator of job 3 was lost");
}

}  // namespace
}  // namespace troupe::testing
