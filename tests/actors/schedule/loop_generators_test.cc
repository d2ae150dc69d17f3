#include "actors/schedule/loop_generators.h"

#include <gtest/gtest.h>

#include "actors/schedule/csv.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

TEST(LoopGenerators, OneForwardOneBackwardAsPublished) {
  const Schedule schedule = *Generate({.name = "1f1b", .num_ranks = 3, .num_microbatches = 4});
  EXPECT_EQ(ToCsv(schedule),
            "0F0,0F1,0F2,0B0,0F3,0B1,0B2,0B3\r\n"
            "1F0,1F1,1B0,1F2,1B1,1F3,1B2,1B3\r\n"
            "2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3\r\n");
}

TEST(LoopGenerators, FewerMicrobatchesThanRanks) {
  const Schedule schedule = *Generate({.name = "1f1b", .num_ranks = 4, .num_microbatches = 2});
  EXPECT_EQ(ToCsvRow(schedule.ranks[0]), "0F0,0F1,0B0,0B1");
  EXPECT_EQ(ToCsvRow(schedule.ranks[3]), "3F0,3B0,3F1,3B1");
}

TEST(LoopGenerators, GpipeRunsAllForwardsFirst) {
  const Schedule schedule = *Generate({.name = "gpipe", .num_ranks = 2, .num_microbatches = 3});
  EXPECT_EQ(ToCsvRow(schedule.ranks[1]), "1F0,1F1,1F2,1B0,1B1,1B2");
}

TEST(LoopGenerators, BreadthFirstFinishesAChunkBeforeTheNext) {
  const Schedule schedule =
      *Generate({.name = "looped-bfs", .num_ranks = 2, .num_microbatches = 2});
  EXPECT_EQ(ToCsv(schedule),
            "0F0,0F1,2F0,2F1,2B0,2B1,0B0,0B1\r\n"
            "1F0,1F1,3F0,3F1,3B0,3B1,1B0,1B1\r\n");
}

TEST(LoopGenerators, InterleavedTakesGroupsOfMicrobatchesThroughTheChunks) {
  const Schedule schedule =
      *Generate({.name = "interleaved-1f1b", .num_ranks = 2, .num_microbatches = 4});
  EXPECT_EQ(ToCsv(schedule),
            "0F0,0F1,2F0,2F1,0F2,2B0,0F3,2B1,2F2,0B0,2F3,0B1,2B2,2B3,0B2,0B3\r\n"
            "1F0,1F1,3F0,3B0,3F1,3B1,1F2,1B0,1F3,1B1,3F2,3B2,3F3,3B3,1B2,1B3\r\n");
}

TEST(LoopGenerators, LargerGroupsRunFurtherAhead) {
  const ScheduleSpec spec{.name = "interleaved", .num_ranks = 2, .num_microbatches = 6, .group = 4};
  const Schedule schedule = *Generate(spec);  // the rest of 2 is as many as the ranks
  EXPECT_EQ(ToCsvRow(schedule.ranks[1]),
            "1F0,1F1,1F2,1F3,3F0,3B0,3F1,3B1,3F2,3B2,3F3,3B3,1F4,1B0,1F5,1B1,3F4,1B2,3F5,1B3,3B4,"
            "3B5,1B4,1B5");
  EXPECT_TRUE(Validate(schedule).ok());
}

TEST(LoopGenerators, InterleavedFewerMicrobatchesThanRanks) {
  for (const char* name : {"interleaved-1f1b", "interleaved-zb"}) {
    const auto schedule = Generate({.name = name, .num_ranks = 4, .num_microbatches = 3});
    ASSERT_TRUE(schedule.ok()) << schedule.error().message;
    const auto report = Validate(*schedule);
    EXPECT_TRUE(report.ok()) << report.error().message;
  }
}

TEST(LoopGenerators, ZeroBubbleH1KeepsTheMemoryOfOneForwardOneBackward) {
  const Schedule schedule = *Generate({.name = "zb-h1", .num_ranks = 3, .num_microbatches = 4});
  EXPECT_EQ(ToCsv(schedule),
            "0F0,0F1,0F2,0I0,0W0,0F3,0I1,0W1,0I2,0W2,0I3,0W3\r\n"
            "1F0,1F1,1I0,1F2,1I1,1W0,1F3,1I2,1W1,1I3,1W2,1W3\r\n"
            "2F0,2I0,2F1,2I1,2F2,2I2,2W0,2F3,2I3,2W1,2W2,2W3\r\n");
}

TEST(LoopGenerators, ZeroBubbleH2FillsTheWarmUp) {
  const Schedule schedule = *Generate({.name = "zb-h2", .num_ranks = 2, .num_microbatches = 4});
  EXPECT_EQ(ToCsv(schedule),
            "0F0,0F1,0F2,0I0,0W0,0F3,0I1,0W1,0I2,0W2,0I3,0W3\r\n"
            "1F0,1I0,1F1,1I1,1F2,1I2,1W0,1F3,1I3,1W1,1W2,1W3\r\n");
}

TEST(LoopGenerators, InterleavedZeroBubbleWithOneChunkIsZeroBubbleH1) {
  for (const int p : {1, 2, 5}) {
    const int m = 2 * p;
    const auto one = Generate(
        {.name = "interleaved-zb", .num_ranks = p, .num_microbatches = m, .chunks_per_rank = 1});
    const auto h1 = Generate({.name = "zb-h1", .num_ranks = p, .num_microbatches = m});
    EXPECT_EQ(one->ranks, h1->ranks);
  }
}

TEST(LoopGenerators, InterleavedZeroBubbleDelaysWeightGradientsByTheRank) {
  const Schedule schedule =
      *Generate({.name = "interleaved-zb", .num_ranks = 2, .num_microbatches = 2});
  EXPECT_EQ(ToCsv(schedule),
            "0F0,0F1,2F0,2F1,2I0,2W0,2I1,2W1,0I0,0W0,0I1,0W1\r\n"
            "1F0,1F1,3F0,3I0,3F1,3I1,3W0,1I0,3W1,1I1,1W0,1W1\r\n");
}

}  // namespace
}  // namespace troupe
