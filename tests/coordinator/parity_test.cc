#include "coordinator/parity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace troupe {
namespace {

using ::testing::HasSubstr;

RunTrace Trace() {
  return {.steps = {{1, 5.5, 1.25}, {2, 5.0, 1.0}}, .parameter_digests = {{0, 7}, {1, 7}}};
}

TEST(CompareTest, EqualTracesAreBitEqual) {
  const Parity parity = Compare(Trace(), Trace());
  EXPECT_TRUE(parity.agrees);
  EXPECT_EQ(parity.sentence, "2 losses, 2 gradient norms and 2 parameters bit-equal");
}

TEST(CompareTest, NamesTheFirstStepThatDiffers) {
  RunTrace other = Trace();
  other.steps[1].loss = std::nextafter(5.0, 6.0);
  const Parity parity = Compare(other, Trace());
  EXPECT_FALSE(parity.agrees);
  EXPECT_THAT(parity.sentence, HasSubstr("first difference at step 2, 0 of 2"));
}

TEST(CompareTest, AGradientNormIsComparedToo) {
  RunTrace other = Trace();
  other.steps[0].grad_norm = 1.5;
  EXPECT_THAT(Compare(other, Trace()).sentence, HasSubstr("first difference at step 1"));
}

TEST(CompareTest, ComparesBitsNotValues) {
  RunTrace a = Trace();
  RunTrace b = Trace();
  a.steps[0].loss = b.steps[0].loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(Compare(a, b).agrees);
  a.steps[0].loss = 0.0;
  b.steps[0].loss = -0.0;
  EXPECT_FALSE(Compare(a, b).agrees);
}

TEST(CompareTest, AStepThatOnlyOneRunSkippedDiffers) {
  RunTrace run = Trace();
  run.steps[1].loss = run.steps[1].grad_norm = std::nullopt;
  EXPECT_THAT(Compare(run, Trace()).sentence, HasSubstr("first difference at step 2, 0 of 2"));
  const Parity both = Compare(run, run);
  EXPECT_TRUE(both.agrees);
  EXPECT_EQ(both.sentence, "1 losses, 1 gradient norms and 2 parameters bit-equal");
}

// It went on from its last checkpoint: the one worker ran all steps.
TEST(CompareTest, ARunWithoutStepsIsComparedByItsParameters) {
  RunTrace resumed = Trace();
  resumed.steps.clear();
  const Parity parity = Compare(resumed, Trace());
  EXPECT_TRUE(parity.agrees);
  EXPECT_EQ(parity.sentence, "2 parameters bit-equal after 2 steps on one worker");
  resumed.parameter_digests.begin()->second ^= 1;
  EXPECT_FALSE(Compare(resumed, Trace()).agrees);
  EXPECT_EQ(Compare(resumed, Trace()).sentence,
            "1 of 2 parameters differ after 2 steps on one worker");
  resumed.parameter_digests.clear();
  EXPECT_FALSE(Compare(resumed, Trace()).agrees);
}

TEST(CompareTest, NothingToCompareIsNotEqual) {
  EXPECT_FALSE(Compare({}, {}).agrees);
  RunTrace bare = Trace();
  bare.parameter_digests.clear();
  EXPECT_FALSE(Compare(bare, bare).agrees);
  RunTrace shorter = Trace();
  shorter.steps.pop_back();
  EXPECT_THAT(Compare(shorter, Trace()).sentence, HasSubstr("1 steps against 2 on one worker"));
  RunTrace fewer = Trace();
  fewer.parameter_digests.erase(1);
  EXPECT_FALSE(Compare(fewer, Trace()).agrees);
  EXPECT_FALSE(Compare(Trace(), fewer).agrees);
}

proto::JobSpec Shared(int ranks, const char* dtype) {
  proto::JobSpec spec;
  spec.mutable_parallelism()->set_cp(ranks);
  spec.mutable_train()->set_dtype(dtype);
  return spec;
}

TEST(ToleranceOfTest, OnlyRanksThatShareSequencesMayDiffer) {
  EXPECT_TRUE(ToleranceOf({}).bit_equal());
  EXPECT_TRUE(ToleranceOf(Shared(1, "bfloat16")).bit_equal());
  EXPECT_EQ(ToleranceOf(Shared(2, "float32")).loss, 1e-5);
  EXPECT_EQ(ToleranceOf(Shared(2, "float32")).grad_norm, 1e-4);
  EXPECT_GT(ToleranceOf(Shared(2, "bfloat16")).loss, 1e-5);
}

TEST(CompareTest, WithinATolerance) {
  const ParityTolerance tolerance = ToleranceOf(Shared(2, "float32"));
  RunTrace run = Trace();
  run.parameter_digests[0] = 8;
  run.steps[0].loss = 5.5 * (1 + 5e-6);
  run.steps[1].grad_norm = 1.0 - 5e-5;
  const Parity close = Compare(run, Trace(), tolerance);
  EXPECT_TRUE(close.agrees);
  EXPECT_EQ(close.sentence,
            "2 losses within 1e-05 and 2 gradient norms within 0.0001 (largest differences 5e-06 "
            "and 5e-05)");
  run.steps[1].grad_norm = 1.0 - 2e-4;
  const Parity apart = Compare(run, Trace(), tolerance);
  EXPECT_FALSE(apart.agrees);
  EXPECT_EQ(apart.sentence,
            "step 2: the loss differs by 0 of itself (1e-05 may be), the gradient norm by 0.0002 "
            "(0.0001 may be)");
  run.steps[1].grad_norm = std::nullopt;
  EXPECT_FALSE(Compare(run, Trace(), tolerance).agrees) << "one skipped the step";
  run.steps[1].grad_norm = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(Compare(run, Trace(), tolerance).agrees);
  run.steps.clear();
  // It went on from its last step.
  EXPECT_TRUE(Compare(run, Trace(), tolerance).agrees);
  EXPECT_THAT(Compare(run, Trace(), tolerance).sentence, HasSubstr("nothing to compare"));
}

}  // namespace
}  // namespace troupe
