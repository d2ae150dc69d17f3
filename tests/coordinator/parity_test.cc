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
  EXPECT_TRUE(parity.bit_equal);
  EXPECT_EQ(parity.sentence, "2 losses, 2 gradient norms and 2 parameters bit-equal");
}

TEST(CompareTest, NamesTheFirstStepThatDiffers) {
  RunTrace other = Trace();
  other.steps[1].loss = std::nextafter(5.0, 6.0);
  const Parity parity = Compare(other, Trace());
  EXPECT_FALSE(parity.bit_equal);
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
  EXPECT_TRUE(Compare(a, b).bit_equal);
  a.steps[0].loss = 0.0;
  b.steps[0].loss = -0.0;
  EXPECT_FALSE(Compare(a, b).bit_equal);
}

TEST(CompareTest, AStepThatOnlyOneRunSkippedDiffers) {
  RunTrace run = Trace();
  run.steps[1].loss = run.steps[1].grad_norm = std::nullopt;
  EXPECT_THAT(Compare(run, Trace()).sentence, HasSubstr("first difference at step 2, 0 of 2"));
  const Parity both = Compare(run, run);
  EXPECT_TRUE(both.bit_equal);
  EXPECT_EQ(both.sentence, "1 losses, 1 gradient norms and 2 parameters bit-equal");
}

// It went on from its last checkpoint: the one worker ran all steps.
TEST(CompareTest, ARunWithoutStepsIsComparedByItsParameters) {
  RunTrace resumed = Trace();
  resumed.steps.clear();
  const Parity parity = Compare(resumed, Trace());
  EXPECT_TRUE(parity.bit_equal);
  EXPECT_EQ(parity.sentence, "2 parameters bit-equal after 2 steps on one worker");
  resumed.parameter_digests.begin()->second ^= 1;
  EXPECT_FALSE(Compare(resumed, Trace()).bit_equal);
  EXPECT_EQ(Compare(resumed, Trace()).sentence,
            "1 of 2 parameters differ after 2 steps on one worker");
  resumed.parameter_digests.clear();
  EXPECT_FALSE(Compare(resumed, Trace()).bit_equal);
}

TEST(CompareTest, NothingToCompareIsNotEqual) {
  EXPECT_FALSE(Compare({}, {}).bit_equal);
  RunTrace bare = Trace();
  bare.parameter_digests.clear();
  EXPECT_FALSE(Compare(bare, bare).bit_equal);
  RunTrace shorter = Trace();
  shorter.steps.pop_back();
  EXPECT_THAT(Compare(shorter, Trace()).sentence, HasSubstr("1 steps against 2 on one worker"));
  RunTrace fewer = Trace();
  fewer.parameter_digests.erase(1);
  EXPECT_FALSE(Compare(fewer, Trace()).bit_equal);
  EXPECT_FALSE(Compare(Trace(), fewer).bit_equal);
}

}  // namespace
}  // namespace troupe
