#include "actors/exchange_progress.h"

#include <gtest/gtest.h>

#include "actors/schedule/generators.h"

namespace troupe {
namespace {

using StepKind = ExchangeProgress::StepKind;

// The next step must be of this kind, for this stage.
void Expect(ExchangeProgress& progress, StepKind kind, int stage) {
  const auto step = progress.Next();
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->kind, kind);
  EXPECT_EQ(step->stage, StageId(stage));
}

TEST(ExchangeProgress, FollowerGivesAndLeaderReturnsTheSum) {
  const Schedule schedule = *Generate({.name = "1f1b", .num_ranks = 2, .num_microbatches = 2});
  const auto exchanges = GradientExchangesOf(schedule, /*tied=*/true);
  ASSERT_EQ(exchanges.size(), 1U);
  ExchangeProgress leader(exchanges, schedule, Rank(0));
  ExchangeProgress follower(exchanges, schedule, Rank(1));
  EXPECT_FALSE(leader.Next().has_value());
  EXPECT_EQ(leader.WaitsFor(), Rank(1));

  Expect(follower, StepKind::kTake, 1);
  EXPECT_FALSE(follower.Next().has_value());
  EXPECT_EQ(follower.WaitsFor(), std::nullopt) << "its own stage is at work";
  EXPECT_TRUE(follower.MarkReady(StageId(1), SharedWeights::kTied));
  Expect(follower, StepKind::kHandOver, 0);
  EXPECT_EQ(follower.WaitsFor(), Rank(0));

  EXPECT_TRUE(leader.MarkArrived(StageId(0), SharedWeights::kTied));
  EXPECT_FALSE(leader.MarkArrived(StageId(0), SharedWeights::kTied)) << "a second time";
  Expect(leader, StepKind::kAdd, 0);
  EXPECT_TRUE(leader.MarkMerged(StageId(0), SharedWeights::kTied));
  Expect(leader, StepKind::kTake, 0);
  EXPECT_TRUE(leader.MarkReady(StageId(0), SharedWeights::kTied));
  EXPECT_FALSE(leader.Done());
  Expect(leader, StepKind::kHandOver, 1);
  EXPECT_TRUE(leader.Done());
  EXPECT_EQ(leader.WaitsFor(), std::nullopt);

  EXPECT_TRUE(follower.MarkArrived(StageId(1), SharedWeights::kTied));
  Expect(follower, StepKind::kReplace, 1);
  EXPECT_FALSE(follower.Done());
  EXPECT_TRUE(follower.MarkMerged(StageId(1), SharedWeights::kTied));
  EXPECT_TRUE(follower.Done());
}

TEST(ExchangeProgress, RefusesWhatNobodyAskedFor) {
  const Schedule schedule = *Generate({.name = "1f1b", .num_ranks = 3, .num_microbatches = 3});
  const auto exchanges = GradientExchangesOf(schedule, /*tied=*/true);
  ExchangeProgress middle(exchanges, schedule, Rank(1));
  EXPECT_TRUE(middle.Done());
  EXPECT_FALSE(middle.MarkArrived(StageId(1), SharedWeights::kTied));
  ExchangeProgress leader(exchanges, schedule, Rank(0));
  EXPECT_FALSE(leader.MarkReady(StageId(0), SharedWeights::kTied));
  EXPECT_FALSE(leader.MarkMerged(StageId(0), SharedWeights::kTied));
  EXPECT_FALSE(leader.MarkArrived(StageId(0), SharedWeights::kReplica));
}

TEST(ExchangeProgress, TiedWeightsWaitForTheDirectionsSums) {
  const Schedule schedule = *Generate({.name = "dualpipe", .num_ranks = 2, .num_microbatches = 4});
  ExchangeProgress progress(GradientExchangesOf(schedule, /*tied=*/true), schedule, Rank(0));
  // Rank 0 leads stage 0 and follows with stage 3; both tied uses are its own too.
  EXPECT_TRUE(progress.MarkArrived(StageId(0), SharedWeights::kTied)) << "early: kept";
  Expect(progress, StepKind::kTake, 3);
  EXPECT_FALSE(progress.Next().has_value());
  EXPECT_TRUE(progress.MarkArrived(StageId(0), SharedWeights::kReplica));
  Expect(progress, StepKind::kAdd, 0);
  EXPECT_FALSE(progress.Next().has_value()) << "no tied weight yet";
}

TEST(ExchangeProgress, NothingIsSharedByOneChainOfUntiedStages) {
  const Schedule schedule = *Generate({.name = "zb-v", .num_ranks = 2, .num_microbatches = 4});
  EXPECT_TRUE(GradientExchangesOf(schedule, /*tied=*/false).empty());
  // A fold brings both uses of a tied weight to one rank: it hands over to itself.
  ExchangeProgress progress(GradientExchangesOf(schedule, /*tied=*/true), schedule, Rank(0));
  Expect(progress, StepKind::kTake, 3);
  EXPECT_TRUE(progress.MarkReady(StageId(3), SharedWeights::kTied));
  const auto step = progress.Next();
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->to, Rank(0));
}

}  // namespace
}  // namespace troupe
