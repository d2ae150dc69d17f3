#include "actors/schedule/drawing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/simulator.h"
#include "actors/schedule/transforms.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

CostModel UnitCosts(const Schedule& schedule) {
  return CostModel::Uniform(
      schedule,
      {.forward_ns = 1'000'000, .backward_input_ns = 1'000'000, .backward_weight_ns = 1'000'000});
}

Timeline Planned(const char* name, int p, int m) {
  const Schedule schedule = *Generate({.name = name, .num_ranks = p, .num_microbatches = m});
  return Simulate(schedule, UnitCosts(schedule))->timeline;
}

size_t Count(std::string_view text, std::string_view word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    ++count;
  }
  return count;
}

TEST(DrawText, ShowsBarsToScale) {
  // Makespan 9 ms over 54 columns: 6 a millisecond.
  std::istringstream lines(DrawText({{"two", Planned("1f1b", 2, 2)}}, 70));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "two");
  std::getline(lines, line);
  EXPECT_EQ(line, "rank 0 |F0----F1----............B0----------......B1----------|  33.3%");
}

TEST(DrawText, StaysWithinItsColumns) {
  for (const int columns : {40, 72, 100}) {
    for (const auto& [p, m] : {std::pair{1, 1}, {4, 8}, {16, 64}, {12, 200}}) {
      std::istringstream lines(DrawText(Planned("1f1b", p, m), columns));
      std::string line;
      for (int row = 0; row < p; ++row) {
        std::getline(lines, line);
        EXPECT_EQ(static_cast<int>(line.size()), columns) << p << " x " << m << ": " << line;
      }
    }
  }
}

TEST(DrawText, SaysSeveralInTurnWhereBarsAreTooShort) {
  const std::string text = DrawText(Planned("1f1b", 16, 64));
  EXPECT_THAT(text, HasSubstr(" = several in turn"));
  EXPECT_THAT(text, HasSubstr("rank 0 |FFFF"));
  EXPECT_THAT(text, HasSubstr("rank 15 |....."));
}

// Lower case for a rank's second chunk; parts of a weight gradient in a row are one bar.
TEST(DrawText, TellsChunksAndDirectionsApart) {
  // 12.5 ms over 75 columns: 3 a half.
  const std::string chunks = DrawText(Planned("zb-v", 2, 4), 91);
  EXPECT_THAT(chunks, HasSubstr("rank 1 |...F0-f0-F1-f1-i0-w0-F2-I0-W0-"));
  EXPECT_THAT(chunks, HasSubstr("lower case: chunk 1\n"));
  EXPECT_THAT(DrawText(Planned("dualpipe", 2, 4)), HasSubstr("lower case: direction 1\n"));
  EXPECT_THAT(DrawText(Planned("1f1b", 2, 4)), Not(HasSubstr("lower case")));
  const Schedule parts =
      WithWeightParts(*Generate({.name = "zb-v", .num_ranks = 2, .num_microbatches = 4}), 4);
  const Timeline timeline = Simulate(parts, UnitCosts(parts))->timeline;
  EXPECT_EQ(DrawText(timeline, 91), chunks);
}

TEST(DrawText, PanelsShareOneScale) {
  const std::string text =
      DrawText({{"short", Planned("zb-h1", 2, 4)}, {"long", Planned("1f1b", 2, 4)}}, 76);
  // 15 ms over 60 columns.
  EXPECT_THAT(text, HasSubstr("short\nrank 0 |F0--F1--....I0--W0--"));
  EXPECT_THAT(text, HasSubstr("long\nrank 0 |F0--F1--........B0------"));
  EXPECT_EQ(Count(text, "idle"), 1U) << "one legend";
  EXPECT_THAT(text, Not(HasSubstr("makespan"))) << "there are two";
}

TEST(DrawText, NothingRan) { EXPECT_EQ(DrawText(Timeline{.num_ranks = 2}), "nothing ran\n"); }

TEST(DrawSvg, HasOneBarAnAction) {
  const std::string svg =
      DrawSvg({{.title = "planned", .timeline = Planned("1f1b", 4, 8)}}, {.title = "1f1b <4 & 8>"});
  EXPECT_EQ(Count(svg, "<rect class=\"f\"") - 1, 32U);  // one more in the legend
  EXPECT_EQ(Count(svg, "<rect class=\"b\"") - 1, 32U);
  EXPECT_EQ(Count(svg, "class=\"fm\""), 32U);  // numbers
  EXPECT_EQ(Count(svg, "<rect class=\"z\"") - 1, 4U);
  EXPECT_EQ(Count(svg, "<rect class=\"u\"") - 1, 4U);
  EXPECT_THAT(svg, HasSubstr("1f1b &lt;4 &amp; 8&gt;"));
  EXPECT_THAT(svg, HasSubstr("makespan 33 ms · bubble 27.3 % of it"));
  EXPECT_THAT(svg, HasSubstr("<title>0F7 · Forward of microbatch 7 · 1 ms</title>"));
  EXPECT_THAT(svg, Not(HasSubstr("waiting for a core")));
  EXPECT_THAT(svg, Not(HasSubstr("communication")));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_EQ(Count(svg, "<text"), Count(svg, "</text>"));
}

// Gathers that take time begin before the passes, drops take none.
TEST(DrawText, ShowsCollectivesInARowOfTheirOwn) {
  const Schedule schedule =
      *ParseCsv("0UNSHARD,1UNSHARD,0F0,1F0,1B0,1REDUCE_GRAD,1RESHARD,0B0,0RESHARD\n", "lane");
  CostModel costs = UnitCosts(schedule);
  for (StageCost& cost : costs.stages) cost.unshard_ns = cost.reduce_grad_ns = 500'000;
  std::istringstream lines(DrawText(Simulate(schedule, costs)->timeline, 51));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "rank 0 |.....F0---f0---b0--------B0--------|  14.3%");
  std::getline(lines, line);
  EXPECT_EQ(line, "       |U0---U1---               RG1--    R|");
  std::getline(lines, line);
  EXPECT_THAT(line, HasSubstr("B Backward  U Unshard  R Reshard  G ReduceGrad"));
  const std::string plain = DrawText(Planned("1f1b", 2, 2));
  EXPECT_EQ(Count(plain, "\n"), 3u) << "no row without collectives";
}

TEST(DrawSvg, ShadesWaitingForACore) {
  Timeline measured = Planned("1f1b", 2, 2);
  for (Bar& bar : measured.bars) {
    bar.start_ns += 5'000'000'000;  // a step that starts late in its clock
    bar.end_ns += 5'000'000'000;
  }
  measured.bars[0].cpu_ns /= 4;
  const std::string svg = DrawSvg({{.title = "measured", .timeline = measured},
                                   {.title = "planned", .timeline = Planned("1f1b", 2, 2)}});
  EXPECT_EQ(Count(svg, "<rect class=\"q\"") - 1, 1U);
  // 0.75 ms of 2 ranks × 9 ms.
  EXPECT_THAT(svg, HasSubstr("waiting for a core 4.2 %"));
  EXPECT_THAT(svg, HasSubstr("0.75 ms waiting for a core"));
  // Both panels start at the same x and share the scale: each first bar stands twice.
  EXPECT_EQ(Count(svg, "<rect class=\"f\" x=\"80.00\""), 2U);
}

TEST(DrawSvg, WidensForNumbersAndDropsThemWhereTheyDoNotFit) {
  const std::string wide = DrawSvg({{.timeline = Planned("1f1b", 16, 64)}});
  EXPECT_EQ(Count(wide, "class=\"fm\""), 1024U);
  EXPECT_THAT(wide, HasSubstr("width=\"2981\""));
  // Chunks are half as long; the second one's class is its own.
  const std::string chunks = DrawSvg({{.timeline = Planned("zb-v", 16, 64)}});
  EXPECT_EQ(Count(chunks, "class=\"fm\"") + Count(chunks, "class=\"f1-2m\""), 2048U);
  const std::string narrow = DrawSvg({{.timeline = Planned("1f1b", 16, 64)}}, {.width_px = 900});
  EXPECT_EQ(Count(narrow, "class=\"fm\""), 0U);
  EXPECT_THAT(DrawSvg({{.timeline = Planned("1f1b", 2, 4)}}), HasSubstr("width=\"1120\""));
}

TEST(DrawSvg, ShadesChunksAndDirections) {
  const std::string two = DrawSvg({{.timeline = Planned("zb-v", 4, 8)}});
  EXPECT_EQ(Count(two, "<rect class=\"f\""), 32U + 2U) << "legend: the kind and its two shades";
  EXPECT_EQ(Count(two, "<rect class=\"f1-2\""), 32U + 1U);
  EXPECT_THAT(two, HasSubstr(">chunks 0 and 1<"));
  const std::string directions = DrawSvg({{.timeline = Planned("dualpipe", 4, 8)}});
  EXPECT_THAT(directions, HasSubstr(">directions 0 and 1<"));
  EXPECT_THAT(directions, HasSubstr(">overlapped pair<"));
  EXPECT_GT(Count(directions, "<rect class=\"o\""), 4U);
  const std::string both = DrawSvg(
      {{.timeline = Planned("dualpipe", 4, 8)}, {.timeline = Planned("interleaved-1f1b", 4, 8)}});
  EXPECT_THAT(both, HasSubstr(">chunks or directions 0 and 1<"));
  EXPECT_THAT(DrawSvg({{.timeline = Planned("1f1b", 4, 8)}}), Not(HasSubstr("chunks")));
}

TEST(DrawSvg, SpeaksInTheUnitThatIsAskedFor) {
  const std::string plain =
      DrawSvg({{.timeline = Planned("1f1b", 4, 8)}}, {.unit = {.ns = 2e6, .name = ""}});
  EXPECT_THAT(plain, HasSubstr("makespan 16.5 · bubble"));
  EXPECT_THAT(plain, HasSubstr("<title>0F7 · Forward of microbatch 7 · 0.5</title>"));
  EXPECT_THAT(plain, Not(HasSubstr("ms")));
  EXPECT_THAT(DrawSvg({{.timeline = Planned("1f1b", 4, 8)}}, {.unit = {.ns = 1e3, .name = "<us"}}),
              HasSubstr("makespan 3.3e+04 &lt;us"));
}

TEST(DrawSvg, SetsATableBelow) {
  const std::string svg = DrawSvg({{.timeline = Planned("1f1b", 2, 2)}},
                                  {.table = {{"schedule", "makespan"}, {"a<b", "9"}}});
  EXPECT_THAT(svg, HasSubstr(">a&lt;b</text>"));
  EXPECT_THAT(svg, HasSubstr("<text class=\"d r\""));
  const std::string wide =
      DrawSvg({{.timeline = Planned("1f1b", 2, 2)}}, {.table = {{std::string(400, 'x')}}});
  EXPECT_THAT(wide, HasSubstr("width=\"3088\"")) << "as wide as its table";
}

TEST(DrawSvg, NumbersPartsOfAWeightGradientOnce) {
  const Schedule parts =
      WithWeightParts(*Generate({.name = "zb-h1", .num_ranks = 2, .num_microbatches = 4}), 4);
  const std::string svg = DrawSvg({{.timeline = Simulate(parts, UnitCosts(parts))->timeline}});
  EXPECT_EQ(Count(svg, "<rect class=\"w\"") - 1, 2U * 4 * 4);
  EXPECT_EQ(Count(svg, "class=\"wm\""), 2U * 4);
}

TEST(DrawSvg, DrawsCollectivesAndAnEmptyTimeline) {
  Timeline timeline = Planned("gpipe", 1, 1);
  timeline.bars.push_back(
      {.action = {.kind = ActionKind::kReduceGrad}, .start_ns = 3'000'000, .end_ns = 6'000'000});
  const std::string svg = DrawSvg({{.timeline = timeline}});
  EXPECT_THAT(svg, HasSubstr(">gradient sum<"));
  EXPECT_THAT(svg, HasSubstr("<title>0REDUCE_GRAD · ReduceGrad of stage 0 · 3 ms</title>"));
  EXPECT_THAT(svg, HasSubstr("makespan 6 ms · bubble 50.0 % of it")) << "it ends with the sums";
  EXPECT_THAT(DrawSvg({{.timeline = {.num_ranks = 2}}}), HasSubstr("rank 1"));
}

}  // namespace
}  // namespace troupe
