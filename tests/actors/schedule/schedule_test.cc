#include "actors/schedule/schedule.h"

#include <gtest/gtest.h>

#include "actors/schedule/generators.h"

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
  EXPECT_FALSE(InputOf(schedule, forward));  // its tokens are no other stage's output
  const Action backward{
      .stage = StageId(0), .kind = ActionKind::kBackward, .microbatch = MicrobatchId(1)};
  EXPECT_FALSE(OutputOf(schedule, backward));
  const auto input = InputOf(schedule, backward);
  ASSERT_TRUE(input);
  EXPECT_EQ(input->kind, InputKind::kGradient);
  EXPECT_EQ(input->from_stage, StageId(1));
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
