#include "runtime/format/chart_ticks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::Pointwise;

TEST(LinearTicks, AreRoundAndWithinTheRange) {
  EXPECT_THAT(LinearTicks(0, 10, 5), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(LinearTicks(2.3, 5.6, 4), ElementsAre(3, 4, 5));
  EXPECT_THAT(LinearTicks(-1, 1, 4), Pointwise(DoubleEq(), {-1.0, -0.5, 0.0, 0.5, 1.0}));
  EXPECT_THAT(LinearTicks(0, 0.3, 3), Pointwise(DoubleEq(), {0.0, 0.1, 0.2, 0.30000000000000004}));
  EXPECT_THAT(LinearTicks(1, 100, 10), ElementsAre(10, 20, 30, 40, 50, 60, 70, 80, 90, 100));
}

TEST(LinearTicks, BytesStepInPowersOfTwo) {
  constexpr double kMiB = 1024.0 * 1024.0;
  EXPECT_THAT(LinearTicks(0, 100 * kMiB, 4, 1024), ElementsAre(0, 32 * kMiB, 64 * kMiB, 96 * kMiB));
  EXPECT_THAT(LinearTicks(0, 3, 8, 1024), ElementsAre(0, 1, 2, 3));  // no half bytes
}

TEST(LinearTicks, NoRangeNoTicks) {
  EXPECT_TRUE(LinearTicks(1, 1, 5).empty());
  EXPECT_TRUE(LinearTicks(2, 1, 5).empty());
  EXPECT_TRUE(LinearTicks(0, 1, 0).empty());
}

TEST(LogTicks, StepByOneTwoFive) {
  EXPECT_THAT(LogTicks(0.9, 60, 8), Pointwise(DoubleEq(), {1.0, 2.0, 5.0, 10.0, 20.0, 50.0}));
}

TEST(LogTicks, OverManyDecadesOnlyPowersOfTen) {
  EXPECT_THAT(LogTicks(1e-6, 1e4, 6), ::testing::SizeIs(11));
}

TEST(LogTicks, WithinOneDecadeAreLinear) {
  EXPECT_THAT(LogTicks(2.2, 6.1, 8), Pointwise(DoubleEq(), LinearTicks(2.2, 6.1, 8)));
  EXPECT_TRUE(LogTicks(0, 10, 5).empty());
}

}  // namespace
}  // namespace troupe
