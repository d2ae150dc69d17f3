#include "actors/reduction_progress.h"

#include <gtest/gtest.h>

#include "actors/schedule/generators.h"

namespace troupe {
namespace {

Schedule Generated(const char* name, int num_ranks, int num_microbatches) {
  return *Generate({.name = name, .num_ranks = num_ranks, .num_microbatches = num_microbatches});
}

// The next reduction must be the plan's `reduction`, started by `stage`.
void Expect(ReductionProgress& progress, int reduction, int stage) {
  const auto step = progress.Next();
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->reduction, reduction);
  EXPECT_EQ(step->stage, StageId(stage));
}

TEST(ReductionProgress, StartsWithTheStagesLastGradient) {
  const Schedule schedule = Generated("1f1b", 3, 3);
  const auto reductions = GradientReductionsOf(schedule, /*tied=*/true);
  ASSERT_EQ(reductions,
            (std::vector<GradientReduction>{{SharedWeights::kTied, {StageId(0), StageId(2)}}}));
  EXPECT_EQ(RanksOf(schedule, reductions[0]), (std::vector{PipelineRank(0), PipelineRank(2)}));
  for (const int rank : {0, 2}) {
    ReductionProgress progress(reductions, schedule, PipelineRank(rank));
    EXPECT_FALSE(progress.Next().has_value());
    progress.MarkGradients(StageId(rank));
    EXPECT_FALSE(progress.MarkReduced(0)) << "it has not started";
    Expect(progress, 0, rank);
    EXPECT_FALSE(progress.Next().has_value()) << "a second time";
    EXPECT_FALSE(progress.Done());
    EXPECT_TRUE(progress.MarkReduced(0));
    EXPECT_FALSE(progress.MarkReduced(0));
    EXPECT_TRUE(progress.Done());
  }
  const ReductionProgress middle(reductions, schedule, PipelineRank(1));
  EXPECT_TRUE(middle.Done());
}

TEST(ReductionProgress, ATiedGradientIsTheSumOfBothDirectionsFirst) {
  const Schedule schedule = Generated("dualpipe", 2, 4);
  const auto reductions = GradientReductionsOf(schedule, /*tied=*/true);
  ASSERT_EQ(reductions.size(), 4U);  // stages 0 and 2, 1 and 3; then 0 and 1, 2 and 3
  ReductionProgress progress(reductions, schedule, PipelineRank(0));  // stages 0 and 3
  progress.MarkGradients(StageId(3));
  Expect(progress, 1, 3);
  EXPECT_FALSE(progress.Next().has_value());
  progress.MarkGradients(StageId(0));
  Expect(progress, 0, 0);
  EXPECT_FALSE(progress.Next().has_value()) << "no tied weight yet";
  EXPECT_TRUE(progress.MarkReduced(0));
  Expect(progress, 2, 0);
  EXPECT_TRUE(progress.MarkReduced(1));
  Expect(progress, 3, 3);
}

TEST(ReductionProgress, AFoldAddsItsCopiesOnOneRank) {
  const Schedule schedule = Generated("zb-v", 2, 4);
  EXPECT_TRUE(GradientReductionsOf(schedule, /*tied=*/false).empty());
  const auto reductions = GradientReductionsOf(schedule, /*tied=*/true);
  EXPECT_EQ(RanksOf(schedule, reductions[0]), std::vector{PipelineRank(0)});
  EXPECT_EQ(StagesOn(schedule, reductions[0], PipelineRank(0)),
            (std::vector{StageId(0), StageId(3)}));
  ReductionProgress progress(reductions, schedule, PipelineRank(0));
  progress.MarkGradients(StageId(0));
  EXPECT_FALSE(progress.Next().has_value()) << "its other copy has no gradient yet";
  progress.MarkGradients(StageId(3));
  Expect(progress, 0, 3);
}

}  // namespace
}  // namespace troupe
