// How a job is compared with one worker: what starts the run on one worker, what it needs, and what
// a difference is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "tests/coordinator/harness.h"

namespace troupe {
namespace {

using testing::Harness;
using ::testing::HasSubstr;
using testing::SmallJob;

class ParityLifeTest : public ::testing::Test {
 protected:
  ParityLifeTest() : host_(h.Join("a", 2)), job_(h.Submitted(Checked())) {
    h.Begins(job_, 2);
    h.Step(job_, 1, 4.5);
    h.Finishes(job_, 0, {{1, 11}});
    h.Finishes(job_, 1, {{0, 10}});
    h.Exits(job_, 0, 0);
    h.Exits(job_, 1, 0);
  }
  void RunReference(double loss, const std::map<int32_t, uint64_t>& digests) {
    h.Begins(job_, 1, /*epoch=*/2);
    h.Step(job_, 1, loss, /*epoch=*/2);
    h.Finishes(job_, 0, digests, false, /*epoch=*/2);
    h.Exits(job_, 0, 0, 0, /*epoch=*/2);
  }
  static proto::JobSpec Checked() {
    proto::JobSpec spec = SmallJob(2);
    spec.mutable_eval()->set_check_against("single_worker");
    spec.mutable_eval()->set_every(5);
    spec.mutable_data()->set_val_fraction(0.1);
    spec.mutable_checkpoint()->set_every(5);
    return spec;
  }
  Harness h;
  HostId host_;
  JobLife& job_;
};

TEST_F(ParityLifeTest, TheReferenceIsTheSameJobOnOneWorker) {
  const auto& start = h.AgentOf(host_).commands.back().spawn().start();
  EXPECT_TRUE(start.reference_run());
  EXPECT_EQ(start.world_size(), 1);
  EXPECT_EQ(start.spec().parallelism().pp(), 1);
  EXPECT_EQ(start.spec().batch().gradient_groups(), 1);
  EXPECT_EQ(start.spec().resources().threads_per_worker(), 1);
  EXPECT_EQ(start.spec().checkpoint().every(), 0);
  EXPECT_FALSE(start.spec().has_eval());
  EXPECT_EQ(h.state.hosts.at(host_).used_slots.size(), 1u);
}

TEST(ParityQueueTest, SlotsThatTheReferenceLeavesAreGivenAtOnce) {
  Harness h;
  h.Join("alpha", 2);
  proto::JobSpec spec = SmallJob(2);
  spec.mutable_eval()->set_check_against("single_worker");
  JobLife& compared = h.Submitted(spec);
  JobLife& waits = h.Submitted(SmallJob(1));
  h.Begins(compared, 2);
  h.Step(compared, 1, 4.5);
  for (const int rank : {0, 1}) h.Finishes(compared, rank);
  EXPECT_EQ(waits.state(), proto::JOB_STATE_QUEUED);
  for (const int rank : {0, 1}) h.Exits(compared, rank, 0);
  EXPECT_EQ(compared.state(), proto::JOB_STATE_DRAINING) << "it is compared";
  EXPECT_EQ(waits.state(), proto::JOB_STATE_STARTING);
}

TEST(ParityQueueTest, TheCheckpointThatTheReferenceStartsFromIsKnownToEveryStart) {
  Harness h;
  const HostId host = h.Join("alpha", 2);
  proto::SubmitRequest request;
  *request.mutable_spec() = SmallJob(2);
  request.mutable_spec()->mutable_eval()->set_check_against("single_worker");
  request.set_resume_from("/runs/a/checkpoints/step-00000004");
  ASSERT_TRUE(h.TrySubmit(request).ok());
  EXPECT_EQ(h.AgentOf(host).commands.back().spawn().start().reference_start(),
            "/runs/a/checkpoints/step-00000004");
  request.mutable_spec()->clear_eval();
  const HostId other = h.Join("beta", 2);
  ASSERT_TRUE(h.TrySubmit(request).ok());
  EXPECT_EQ(h.AgentOf(other).commands.back().spawn().start().reference_start(), "");
}

// Two ranks that share sequences, and what one worker makes of the same step.
int ExitCodeWithLoss(double of_one_worker) {
  Harness h;
  h.Join("alpha", 2);
  proto::JobSpec spec = SmallJob(1);
  spec.mutable_parallelism()->set_cp(2);
  spec.mutable_resources()->set_workers(2);
  spec.mutable_eval()->set_check_against("single_worker");
  JobLife& job = h.Submitted(spec);
  h.Begins(job, 2);
  h.Step(job, 1, 4.5);
  for (const int rank : {0, 1}) h.Finishes(job, rank, {{rank, 10}});
  for (const int rank : {0, 1}) h.Exits(job, rank, 0);
  h.Begins(job, 1, /*epoch=*/2);
  h.Step(job, 1, of_one_worker, /*epoch=*/2);
  h.Finishes(job, 0, {{0, 11}, {1, 12}}, false, /*epoch=*/2);
  h.Exits(job, 0, 0, 0, /*epoch=*/2);
  return job.summary().exit_code();
}

TEST(ParityToleranceTest, SharedSequencesMayDifferByRoundingAndNoMore) {
  EXPECT_EQ(ExitCodeWithLoss(4.5 * (1 + 9e-6)), 0);
  EXPECT_EQ(ExitCodeWithLoss(4.5 * (1 + 2e-5)), 6);
}

TEST_F(ParityLifeTest, EqualBitsSucceed) {
  RunReference(4.5, {{0, 10}, {1, 11}});
  EXPECT_EQ(job_.state(), proto::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(h.FollowerOf(job_).Result()->parity(),
            "1 losses, 1 gradient norms and 2 parameters bit-equal");
}

TEST_F(ParityLifeTest, AnotherLossFailsTheGate) {
  RunReference(4.5000000000000009, {{0, 10}, {1, 11}});
  EXPECT_EQ(job_.summary().exit_code(), 6);
  EXPECT_THAT(job_.summary().reason(), HasSubstr("first difference at step 1"));
}

TEST_F(ParityLifeTest, OtherParametersFailTheGate) {
  RunReference(4.5, {{0, 10}, {1, 12}});
  EXPECT_EQ(job_.summary().exit_code(), 6);
  EXPECT_THAT(job_.summary().reason(), HasSubstr("1 of 2 parameters"));
}

TEST_F(ParityLifeTest, AReferenceThatDiesIsNamedAsSuch) {
  h.Hello(job_, 0, "b", /*epoch=*/2);
  h.Exits(job_, 0, 0, SIGSEGV, /*epoch=*/2);
  EXPECT_EQ(job_.summary().exit_code(), 5);
  EXPECT_THAT(job_.summary().reason(), HasSubstr("reference run's rank 0"));
  EXPECT_THAT(job_.summary().reason(), HasSubstr("(SIGSEGV)"));
}

}  // namespace
}  // namespace troupe
