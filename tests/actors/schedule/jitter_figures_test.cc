#include "tests/actors/schedule/jitter_figures.h"

#include <gtest/gtest.h>

#include <cmath>

namespace troupe {
namespace {

using testing::kJitterConditions;
using testing::kJitterRows;

TEST(JitterFigures, FreeRunningOnTheVReachesItsGoals) {
  for (const testing::JitterGoal& goal : testing::JitterGoals(200)) {
    EXPECT_TRUE(goal.met()) << goal.what << ": " << goal.figure.mean << " +- "
                            << goal.figure.standard_error;
    EXPECT_GT(goal.figure.standard_error, 0);
    EXPECT_LT(goal.figure.standard_error, 0.5);
  }
}

TEST(JitterFigures, AGoalThatIsMissedIsNotMet) {
  EXPECT_FALSE((testing::JitterGoal{"", {2.1, 0.1}, 2}).met());
  EXPECT_FALSE((testing::JitterGoal{"", {2.9, 0.1}, 3, false}).met());
}

// Reference means of 8 samples scatter by some tenths, under hiccups by points: near enough that
// another definition (a sigma, a bound, a span) would show.
TEST(JitterFigures, SampledMeansAreNearTheReference) {
  for (const testing::JitterRow& row : kJitterRows) {
    SCOPED_TRACE(testing::LabelOf(row));
    const auto samples = SampleJitter(row, kJitterConditions[testing::kMiddle], 40);
    EXPECT_NEAR(testing::EstimateOf(samples.makespan_bubble).mean, row.makespan[testing::kMiddle],
                1);
    EXPECT_NEAR(testing::EstimateOf(samples.span_bubble).mean, row.span, 1.5);
    EXPECT_NEAR(testing::EstimateOf(samples.above_busiest).mean, row.above[0], 1);
  }
}

TEST(JitterFigures, PoliciesWithoutNoise) {
  const testing::FigureTable table = testing::StillFigures();
  for (const testing::FigureRow& row : table.rows) {
    const testing::Figure& figure = row.figures.front();
    EXPECT_NEAR(figure.ours, figure.reference, figure.tolerance) << row.label;
  }
  EXPECT_EQ(table.NumJudged(), static_cast<int>(kJitterRows.size()));
}

TEST(JitterFigures, TheBusiestRanksBoundIsNeverAboveTheOther) {
  const auto samples = SampleJitter(testing::FreeRunRow(), kJitterConditions[testing::kMiddle], 40);
  int higher = 0;
  for (size_t i = 0; i < samples.above_bound.size(); ++i) {
    EXPECT_LE(samples.above_bound[i], samples.above_busiest[i]);
    higher += samples.above_bound[i] < samples.above_busiest[i];
  }
  EXPECT_GT(higher, 10);
}

TEST(JitterFigures, EstimatesAreMeansWithStandardErrors) {
  const Estimate estimate = testing::EstimateOf({1, 2, 3, 6});
  EXPECT_DOUBLE_EQ(estimate.mean, 3);
  EXPECT_DOUBLE_EQ(estimate.standard_error, std::sqrt((4 + 1 + 0 + 9) / 3.0 / 4));
  EXPECT_EQ(testing::EstimateOf({5}).standard_error, 0);
  const Estimate difference = testing::EstimateOfDifference({5, 7}, {1, 3});
  EXPECT_DOUBLE_EQ(difference.mean, 4);
  EXPECT_DOUBLE_EQ(difference.standard_error, 0);
}

}  // namespace
}  // namespace troupe
