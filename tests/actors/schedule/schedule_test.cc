#include "actors/schedule/schedule.h"

#include <gtest/gtest.h>

#include "actors/schedule/generators.h"
#include "tests/support/two_chains.h"

namespace troupe {
namespace {

Schedule TwoByTwo() { return *Generate({.name = "1f1b", .num_ranks = 2, .num_microbatches = 2}); }

TEST(ScheduleTopology, InputsAndOutputsMeet) {
  const Schedule schedule = TwoByTwo();
  const Action forward{
      .stage = StageId(0), .kind = ActionKind::kForward, .microbatch = MicrobatchId(1)};
  const auto output = OutputOf(schedule, forward);
  ASSERT_TRUE(output);
  EXPECT_EQ(output->kind, InputKind::kActivation);
  EXPECT_EQ(output->to, PipelineRank(1));
  EXPECT_TRUE(output->crosses_ranks());
  EXPECT_TRUE(InputsOf(schedule, forward).empty());  // its tokens are no other stage's output
  const Action backward{
      .stage = StageId(0), .kind = ActionKind::kBackward, .microbatch = MicrobatchId(1)};
  EXPECT_FALSE(OutputOf(schedule, backward));
  const InputList inputs = InputsOf(schedule, backward);
  ASSERT_EQ(inputs.size(), 1U);
  EXPECT_EQ(inputs.begin()->kind, InputKind::kGradient);
  EXPECT_EQ(inputs.begin()->from_stage, StageId(1));
  EXPECT_FALSE(OutputOf(schedule, {.stage = StageId(1), .kind = ActionKind::kBackwardWeight}));
}

TEST(ScheduleTopology, PlacesStagesInLoopsAndFolds) {
  const auto ranks = [](const std::vector<PipelineRank>& placement) {
    std::string text;
    for (const PipelineRank rank : placement) {
      text += fmt::format("{}", rank);
    }
    return text;
  };
  EXPECT_EQ(ranks(LoopPlacement(3, 9)), "012012012");
  EXPECT_EQ(ranks(VPlacement(3, 9)), "012210012");
  EXPECT_EQ(ranks(BidirectionalPlacement(4)), "01233210");
  EXPECT_EQ(ranks(VPlacement(1, 2)), "00");
}

TEST(ScheduleTopology, SeparatesTwoDirections) {
  // Two ranks, direction 0 is stages 0, 1 on ranks 0, 1; direction 1 is stages 2, 3 on ranks 1, 0.
  const Schedule schedule{
      .name = "both ways",
      .num_ranks = 2,
      .num_stages = 4,
      .num_microbatches = 6,
      .num_directions = 2,
      .placement = {PipelineRank(0), PipelineRank(1), PipelineRank(1), PipelineRank(0)}};
  EXPECT_TRUE(schedule.IsFirstStage(StageId(2)));
  EXPECT_TRUE(schedule.IsLastStage(StageId(1)));
  EXPECT_FALSE(OutputOf(schedule, {.stage = StageId(1), .kind = ActionKind::kForward}));
  EXPECT_EQ(schedule.FirstMicrobatch(StageId(3)), MicrobatchId(3));
  EXPECT_EQ(schedule.StagesOf(PipelineRank(0)), (std::vector<StageId>{StageId(0), StageId(3)}));
  EXPECT_DOUBLE_EQ(schedule.StageShare(StageId(0)), 1.0);
}

TEST(ScheduleTopology, AStageMayReadSeveralOthers) {
  const Schedule schedule = testing::TwoChains(testing::SameSender(), 2);
  const Action loss{
      .stage = StageId(3), .kind = ActionKind::kForward, .microbatch = MicrobatchId(1)};
  const InputList inputs = InputsOf(schedule, loss);
  ASSERT_EQ(inputs.size(), 2U);
  const int from[] = {0, 2};
  for (const Transfer& input : inputs) {
    EXPECT_EQ(input.from_stage, StageId(from[input.input]));
    const auto sent =
        OutputOf(schedule, {.stage = input.from_stage, .microbatch = input.microbatch});
    ASSERT_TRUE(sent);
    EXPECT_EQ(sent->to_stage, StageId(3));
    EXPECT_EQ(sent->input, input.input);
  }
  for (const int first : {0, 1}) EXPECT_TRUE(schedule.IsFirstStage(StageId(first)));
  for (const int inner : {0, 1, 2}) EXPECT_FALSE(schedule.IsLastStage(StageId(inner)));
  EXPECT_TRUE(schedule.IsLastStage(StageId(3)));
}

TEST(ScheduleTopology, AGradientGoesBackWhereAnEdgeCarriesIt) {
  const Schedule schedule = testing::TwoChains(testing::SameSender(), 2);
  const auto back = OutputOf(schedule, {.stage = StageId(3), .kind = ActionKind::kBackward});
  ASSERT_TRUE(back);
  EXPECT_EQ(back->to_stage, StageId(0));
  EXPECT_FALSE(OutputOf(schedule, {.stage = StageId(0), .kind = ActionKind::kBackward}));
  for (const int trained : {0, 3}) EXPECT_TRUE(schedule.HasBackward(StageId(trained)));
  for (const int read : {1, 2}) EXPECT_FALSE(schedule.HasBackward(StageId(read)));
}

TEST(ScheduleTopology, SharesARankAmongItsStages) {
  const Schedule schedule{
      .num_ranks = 3, .num_stages = 5, .num_microbatches = 1, .placement = LoopPlacement(2, 5)};
  const std::vector<double> shares = schedule.StageShares();
  ASSERT_EQ(shares.size(), 5U);
  for (int stage = 0; stage < schedule.num_stages; ++stage) {
    EXPECT_DOUBLE_EQ(shares[static_cast<size_t>(stage)], stage % 2 == 0 ? 1.0 / 3 : 0.5);
    EXPECT_DOUBLE_EQ(schedule.StageShare(StageId(stage)), shares[static_cast<size_t>(stage)]);
  }
}

}  // namespace
}  // namespace troupe
