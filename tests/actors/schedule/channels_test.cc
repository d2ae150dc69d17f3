#include "actors/schedule/channels.h"

#include <gtest/gtest.h>

#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

std::vector<Channel> Channels(const char* name, int p, int m) {
  return ChannelsOf(*Generate({.name = name, .num_ranks = p, .num_microbatches = m}));
}

TEST(Channels, OneRankHasNone) { EXPECT_TRUE(Channels("1f1b", 1, 8).empty()); }

TEST(Channels, OneForwardOneBackwardNeedsAsManyAsItKeeps) {
  const auto channels = Channels("1f1b", 4, 16);
  EXPECT_EQ(channels.size(), 6U);
  for (int r = 0; r < 3; ++r) {
    // Rank r runs p-1-r ahead and one more before it needs a gradient; in the cool-down rank r+1
    // runs as far ahead on the way back.
    EXPECT_EQ(SlotsFor(channels, PipelineRank(r), PipelineRank(r + 1), InputKind::kActivation),
              4 - r);
    EXPECT_EQ(SlotsFor(channels, PipelineRank(r + 1), PipelineRank(r), InputKind::kGradient),
              4 - r);
  }
  EXPECT_EQ(channels[0].num_messages, 16);
  EXPECT_EQ(SlotsFor(channels, PipelineRank(0), PipelineRank(2), InputKind::kActivation), 0);
}

TEST(Channels, GpipeMayBeAWholeStepAhead) {
  const auto channels = Channels("gpipe", 2, 5);
  EXPECT_EQ(SlotsFor(channels, PipelineRank(0), PipelineRank(1), InputKind::kActivation), 5);
  EXPECT_EQ(SlotsFor(channels, PipelineRank(1), PipelineRank(0), InputKind::kGradient), 5);
}

TEST(Channels, NeverMoreThanTheMicrobatches) {
  const auto channels = Channels("1f1b", 8, 2);
  EXPECT_EQ(SlotsFor(channels, PipelineRank(0), PipelineRank(1), InputKind::kActivation), 2);
}

TEST(Channels, HandOverOnOneRankIsNone) {
  EXPECT_TRUE(ChannelsOf(*ParseCsv("0F0,1F0,1B0,0B0\n", "fold")).empty());
}

}  // namespace
}  // namespace troupe
