#include "actors/schedule/drawn_bars.h"

#include <gtest/gtest.h>

#include "actors/schedule/generators.h"
#include "actors/schedule/simulator.h"

namespace troupe {
namespace {

Timeline Planned(const char* name, int p, int m, int chunks = 0) {
  const Schedule schedule =
      *Generate({.name = name, .num_ranks = p, .num_microbatches = m, .chunks_per_rank = chunks});
  const StageCost cost{.forward_ns = 120, .backward_input_ns = 120, .backward_weight_ns = 120};
  return Simulate(schedule, CostModel::Uniform(schedule, cost))->timeline;
}

Action Of(int stage) { return {.stage = StageId(stage)}; }

TEST(DrawnBars, NumberAStageAmongItsRanks) {
  const DrawnChunks loop = ChunksOf(Planned("interleaved-1f1b", 4, 8, 3));
  EXPECT_EQ(loop.num_chunks, 3);
  EXPECT_FALSE(loop.directions);
  EXPECT_EQ(loop.Of(Of(3)), 0);
  EXPECT_EQ(loop.Of(Of(4)), 1);
  EXPECT_EQ(loop.Of(Of(11)), 2);
  const DrawnChunks v = ChunksOf(Planned("zb-v", 4, 8));
  EXPECT_FALSE(v.directions);
  EXPECT_EQ(v.Of(Of(7)), 1);
  const DrawnChunks both_ways = ChunksOf(Planned("dualpipe", 4, 8));
  EXPECT_TRUE(both_ways.directions) << "a rank's stages share no microbatch";
  EXPECT_EQ(both_ways.Of(Of(4)), 1);
  EXPECT_EQ(ChunksOf(Planned("1f1b", 4, 8)).num_chunks, 1);
  EXPECT_EQ(ChunksOf({}).Of({.stage = StageId(9), .kind = ActionKind::kReduceGrad}), 0);
}

TEST(DrawnBars, JoinPartsThatTouch) {
  std::vector<Bar> bars;
  const auto add = [&bars](int microbatch, int part, int64_t start_ns) {
    Action action{.kind = ActionKind::kBackwardWeight,
                  .part = static_cast<uint8_t>(part),
                  .num_parts = 3,
                  .microbatch = MicrobatchId(microbatch)};
    bars.push_back({.action = action, .start_ns = start_ns, .end_ns = start_ns + 10, .cpu_ns = 9});
  };
  for (int part = 0; part < 3; ++part) add(0, part, 10 * part);
  add(1, 0, 30);
  add(1, 1, 41);  // a gap before it
  add(1, 2, 51);
  const std::vector<Bar> joined = WithPartsJoined(bars);
  ASSERT_EQ(joined.size(), 3U);
  EXPECT_EQ(ToString(joined[0].action), "0W0") << "all of it";
  EXPECT_EQ(joined[0].end_ns, 30);
  EXPECT_EQ(joined[0].cpu_ns, 27);
  EXPECT_EQ(ToString(joined[1].action), "0W1/1of3");
  EXPECT_EQ(ToString(joined[2].action), "0W1/2of3") << "the last two";
  EXPECT_EQ(joined[2].end_ns, 61);
}

TEST(DrawnBars, LaterChunksArePalerAndReadable) {
  const Look& forward = LookOf(ActionKind::kForward);
  EXPECT_EQ(FillOf(forward, 0, 4), FillOf(forward, 0, 1));
  std::string last;
  for (int chunk = 0; chunk < 4; ++chunk) {
    EXPECT_GT(FillOf(forward, chunk, 4), last) << "lighter in red, so greater as text";
    last = FillOf(forward, chunk, 4);
  }
  EXPECT_EQ(TextColorOf(forward, 0, 2), "#ffffff");
  EXPECT_NE(TextColorOf(forward, 1, 2), "#ffffff") << "dark on pale";
  EXPECT_EQ(CssClassOf(forward, 0, 2), "f");
  EXPECT_EQ(CssClassOf(forward, 1, 2), "f1-2");
  EXPECT_EQ(LookOf(ActionKind::kUnshard).legend, "gather");
  EXPECT_EQ(LookOf(ActionKind::kReshard).legend, "drop");
  EXPECT_EQ(LookOf(ActionKind::kReduceGrad).legend, "gradient sum");
}

}  // namespace
}  // namespace troupe
