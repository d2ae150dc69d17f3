#include "actors/schedule/drawing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "actors/schedule/generators.h"
#include "actors/schedule/simulator.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Timeline Planned(const char* name, int p, int m) {
  const Schedule schedule = *Generate({.name = name, .num_ranks = p, .num_microbatches = m});
  const CostModel costs = CostModel::Uniform(
      schedule,
      {.forward_ns = 1'000'000, .backward_input_ns = 1'000'000, .backward_weight_ns = 1'000'000});
  return Simulate(schedule, costs)->timeline;
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
  std::istringstream lines(DrawText(Planned("1f1b", 2, 2), {.title = "two", .columns = 70}));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "two");
  std::getline(lines, line);
  EXPECT_EQ(line, "rank 0 |F0----F1----............B0----------......B1----------|  33.3%");
}

TEST(DrawText, StaysWithinItsColumns) {
  for (const int columns : {40, 72, 100}) {
    for (const auto& [p, m] : {std::pair{1, 1}, {4, 8}, {16, 64}, {12, 200}}) {
      std::istringstream lines(DrawText(Planned("1f1b", p, m), {.columns = columns}));
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

TEST(DrawText, ColoursInPlaceOfLetters) {
  const std::string text = DrawText(Planned("gpipe", 2, 4), {.color = true});
  EXPECT_EQ(Count(text, "\x1b[48;5;111;"), 8U);
  EXPECT_EQ(Count(text, "\x1b[0m"), 16U + 2U);
  EXPECT_THAT(text, Not(HasSubstr("F0")));
}

TEST(DrawText, NothingRan) { EXPECT_EQ(DrawText({.num_ranks = 2}), "nothing ran\n"); }

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
  EXPECT_EQ(Count(svg, "<rect class=\"f\" x=\"80.00\""), 2U + 1U);
}

TEST(DrawSvg, WidensForNumbersAndDropsThemWhereTheyDoNotFit) {
  const std::string wide = DrawSvg({{.timeline = Planned("1f1b", 16, 64)}});
  EXPECT_EQ(Count(wide, "class=\"fm\""), 1024U);
  EXPECT_THAT(wide, HasSubstr("width=\"2600\""));
  const std::string narrow = DrawSvg({{.timeline = Planned("1f1b", 16, 64)}}, {.width_px = 900});
  EXPECT_EQ(Count(narrow, "class=\"fm\""), 0U);
  EXPECT_THAT(DrawSvg({{.timeline = Planned("1f1b", 2, 4)}}), HasSubstr("width=\"1120\""));
}

TEST(DrawSvg, DrawsCollectivesAndAnEmptyTimeline) {
  Timeline timeline = Planned("gpipe", 1, 1);
  timeline.bars.push_back(
      {.action = {.kind = ActionKind::kReduceGrad}, .start_ns = 3'000'000, .end_ns = 6'000'000});
  const std::string svg = DrawSvg({{.timeline = timeline}});
  EXPECT_THAT(svg, HasSubstr("communication"));
  EXPECT_THAT(svg, HasSubstr("makespan 3 ms · bubble 0.0 % of it"));  // compute alone counts
  EXPECT_THAT(DrawSvg({{.timeline = {.num_ranks = 2}}}), HasSubstr("rank 1"));
}

}  // namespace
}  // namespace troupe
