#include "actors/schedule/list_writer.h"

#include <gtest/gtest.h>

#include "actors/schedule/csv.h"

namespace troupe {
namespace {

// One rank with two stages in one direction, or one in each of two.
Schedule Shape(int num_directions) {
  return {.num_ranks = 1,
          .num_stages = 2,
          .num_microbatches = 4,
          .num_directions = num_directions,
          .placement = {PipelineRank(0), PipelineRank(0)},
          .ranks = std::vector<std::vector<Action>>(1)};
}

TEST(ListWriter, CountsMicrobatchesPerStageAndKind) {
  Schedule schedule = Shape(1);
  ListWriter list(schedule, PipelineRank(0));
  list.Forward(StageId(0));
  list.Forward(StageId(1));
  list.Forward(StageId(0));
  list.Backward(StageId(1));
  list.BackwardInput(StageId(0));
  list.BackwardInput(StageId(0));
  list.BackwardWeight(StageId(0));
  EXPECT_EQ(ToCsvRow(schedule.ranks[0]), "0F0,1F0,0F1,1B0,0I0,0I1,0W0");
}

TEST(ListWriter, StartsEachDirectionAtItsFirstMicrobatch) {
  Schedule schedule = Shape(2);
  ListWriter list(schedule, PipelineRank(0));
  list.Forward(StageId(0));
  list.Forward(StageId(1));
  list.Pair(StageId(0), StageId(1));
  EXPECT_EQ(ToCsvRow(schedule.ranks[0]), "0F0,1F2,(0F1;1B2)OVERLAP_F_B");
}

TEST(ListWriter, PaysOwedWeightGradientsOldestFirst) {
  Schedule schedule = Shape(1);
  ListWriter list(schedule, PipelineRank(0));
  list.Backward(StageId(0));
  list.BackwardInput(StageId(0));
  list.BackwardInput(StageId(1));
  list.BackwardInput(StageId(0));
  list.BackwardWeight(StageId(1));
  EXPECT_FALSE(list.OwesWeight(StageId(1)));
  EXPECT_TRUE(list.OwesWeight(StageId(0)));
  list.OldestBackwardWeight();
  list.AllOwedWeights();
  EXPECT_EQ(ToCsvRow(schedule.ranks[0]), "0B0,0I1,1I0,0I2,1W0,0W1,0W2");
}

TEST(ListWriterDeathTest, OwesNothingItDidNotWrite) {
  Schedule schedule = Shape(1);
  ListWriter list(schedule, PipelineRank(0));
  EXPECT_DEATH(list.OldestBackwardWeight(), "no stage owes");
  list.BackwardInput(StageId(0));
  EXPECT_DEATH(list.BackwardWeight(StageId(1)), "stage 1 owes no weight gradient");
}

}  // namespace
}  // namespace troupe
