#include "actors/schedule/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/generators.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

Schedule TwoByTwo() { return *Generate({.name = "1f1b", .num_ranks = 2, .num_microbatches = 2}); }

TEST(ScheduleCsv, WritesOneRowARank) {
  EXPECT_EQ(ToCsv(TwoByTwo()), "0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1\r\n");
}

TEST(ScheduleCsv, ReadsBackWhatItWrites) {
  const Schedule written = *Generate({.name = "gpipe", .num_ranks = 3, .num_microbatches = 5});
  const auto read = ParseCsv(ToCsv(written), "mine");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->name, "mine");
  EXPECT_EQ(read->num_stages, 3);
  EXPECT_EQ(read->num_microbatches, 5);
  EXPECT_EQ(read->placement, written.placement);
  EXPECT_EQ(read->ranks, written.ranks);
}

TEST(ScheduleCsv, KeepsOverlappedPairs) {
  const std::string text = "0F0,(0F1;0B0)OVERLAP_F_B,0B1\r\n";
  const auto read = ParseCsv(text, "pairs");
  ASSERT_TRUE(read.ok()) << read.error().message;
  ASSERT_EQ(read->ranks[0].size(), 4U);
  EXPECT_EQ(read->ranks[0][0].pair, kNotPaired);
  EXPECT_EQ(read->ranks[0][1].pair, read->ranks[0][2].pair);
  EXPECT_NE(read->ranks[0][1].pair, kNotPaired);
  EXPECT_EQ(ToCsv(*read), text);
}

TEST(ScheduleCsv, SkipsBlankCellsAndBlankLastLine) {
  const auto read = ParseCsv("0F0, ,0B0\n,1F0,1B0\n\n", "blanks");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->num_ranks, 2);
  EXPECT_EQ(ToCsv(*read), "0F0,0B0\r\n1F0,1B0\r\n");
}

TEST(ScheduleCsv, RefusesWithRowAndCell) {
  const std::pair<const char*, const char*> cases[] = {
      {"0F0,0B0\n1F0,,1Z0\n", "row 2, cell 3: action '1Z0'"},
      {"(0F0;0B0,0B1\n", "row 1, cell 1: pair '(0F0;0B0' does not end"},
      {"(0F0;0B0)OVERLAP\n", "does not end in )OVERLAP_F_B"},
      {"()OVERLAP_F_B\n", "no stage number"},
      {"0F0,0B0\n0F1,0B1\n", "row 2: 0F1 runs stage 0, which row 1 runs too"},
      {"0F0,0B0\n2F0,2B0\n", "no row runs stage 1"},
      {"0F0,0B1000000\n", "microbatches up to 1000000 need more than the 2 compute actions"},
      {"0UNSHARD\n", "no compute action"},
      {"", "no compute action"},
  };
  for (const auto& [text, reason] : cases) {
    const auto read = ParseCsv(text, "bad");
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_THAT(read.error().message, HasSubstr(reason));
  }
}

TEST(ScheduleCsv, DropsCommunication) {
  const auto read = ParseCsv("0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "comms");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(ToCsv(WithoutCommunication(*read)), "0F0,0B0\r\n1F0,1B0\r\n");
}

TEST(ScheduleTopology, InputsAndOutputsMeet) {
  const Schedule schedule = TwoByTwo();
  const Action forward{
      .stage = StageId(0), .kind = ActionKind::kForward, .microbatch = MicrobatchId(1)};
  const auto output = OutputOf(schedule, forward);
  ASSERT_TRUE(output);
  EXPECT_EQ(output->kind, InputKind::kActivation);
  EXPECT_EQ(output->to, Rank(1));
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
  const auto ranks = [](const std::vector<Rank>& placement) {
    std::string text;
    for (const Rank rank : placement) {
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
  const Schedule schedule{.name = "both ways",
                          .num_ranks = 2,
                          .num_stages = 4,
                          .num_microbatches = 6,
                          .num_directions = 2,
                          .placement = {Rank(0), Rank(1), Rank(1), Rank(0)}};
  EXPECT_TRUE(schedule.IsFirstStage(StageId(2)));
  EXPECT_TRUE(schedule.IsLastStage(StageId(1)));
  EXPECT_FALSE(OutputOf(schedule, {.stage = StageId(1), .kind = ActionKind::kForward}));
  EXPECT_EQ(schedule.FirstMicrobatch(StageId(3)), MicrobatchId(3));
  EXPECT_EQ(schedule.StagesOf(Rank(0)), (std::vector<StageId>{StageId(0), StageId(3)}));
  EXPECT_DOUBLE_EQ(schedule.StageShare(StageId(0)), 1.0);
}

}  // namespace
}  // namespace troupe
