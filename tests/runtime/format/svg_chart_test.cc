#include "runtime/format/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace troupe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

size_t Count(std::string_view text, std::string_view word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    ++count;
  }
  return count;
}

// The point list of the n-th drawn polyline or polygon.
std::string PointsOf(const std::string& svg, size_t n) {
  size_t at = 0;
  for (size_t i = 0; i <= n; ++i) {
    at = svg.find(" points=\"", at) + 9;
  }
  return svg.substr(at, svg.find('"', at) - at);
}

TEST(LineChart, DrawsEverySeriesToTheFrame) {
  const std::string svg =
      LineChart({{.name = "train", .points = {{1, 4}, {2, 3}, {3, 2}}},
                 {.name = "val & test", .points = {{2, 3.5}}, .dashed = true}},
                {.title = "loss <tiny>", .x_label = "step", .width_px = 960, .height_px = 420});
  EXPECT_EQ(Count(svg, "<polyline"), 2U);
  // x from 72 to 936; y has 6 % of the range above and below: 296 px for 2.24.
  EXPECT_EQ(PointsOf(svg, 0), "72.0,89.9 504.0,222.0 936.0,354.1 ");
  EXPECT_EQ(PointsOf(svg, 1), "504.0,155.9 ");
  EXPECT_THAT(svg, HasSubstr("loss &lt;tiny&gt;"));
  EXPECT_THAT(svg, HasSubstr("train 2</text>"));
  EXPECT_THAT(svg, HasSubstr("val &amp; test 3.5</text>"));
  EXPECT_EQ(Count(svg, "stroke-dasharray"), 2U);  // the line and its legend
  EXPECT_EQ(Count(svg, "<circle"), 3U);           // few points get dots, dashed lines none
  EXPECT_EQ(Count(svg, "<g"), Count(svg, "</g>"));
}

TEST(LineChart, LeavesOutWhatHasNoPlace) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<ChartSeries> series = {
      {.name = "s", .points = {{1, 1}, {2, nan}, {3, infinity}, {4, -2}, {5, 10}}}};
  EXPECT_EQ(Count(PointsOf(LineChart(series, {}), 0), ","), 3U);
  const std::string log = LineChart(series, {.log_y = true});
  EXPECT_EQ(Count(PointsOf(log, 0), ","), 2U);
  for (const std::string& svg : {LineChart(series, {}), log}) {
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
  }
}

TEST(LineChart, SurvivesNoAndOnePoint) {
  for (const bool log_y : {false, true}) {
    const std::string none = LineChart({{.name = "val"}}, {.log_y = log_y});
    EXPECT_THAT(none, HasSubstr("val no points"));
    const std::string one = LineChart({{.name = "val", .points = {{3, 0.5}}}}, {.log_y = log_y});
    EXPECT_EQ(PointsOf(one, 0).substr(0, 6), "504.0,");  // in the middle
    EXPECT_THAT(none + one + LineChart({}, {.log_y = log_y}), Not(HasSubstr("nan")));
  }
}

TEST(LineChart, ThinsButKeepsExtremes) {
  ChartSeries series{.name = "long"};
  for (int i = 0; i < 100'000; ++i) {
    series.points.push_back({static_cast<double>(i), i == 54'321 ? 100.0 : std::sin(i * 0.1)});
  }
  const std::string points = PointsOf(LineChart({series}, {.width_px = 960, .height_px = 420}), 0);
  EXPECT_LT(Count(points, ","), 4U * 870);
  EXPECT_GT(Count(points, ","), 864U);
  // The one spike still reaches its height: 6 % below the top of 296 px + its own margin.
  EXPECT_THAT(points, HasSubstr(",89.9 "));
}

TEST(ChartColumn, PutsChartsBelowOneAnother) {
  const std::string chart = LineChart({{.name = "s", .points = {{1, 1}}}}, {.height_px = 300});
  const std::string svg = ChartColumn({{chart, 300}, {chart, 420}}, 960);
  EXPECT_THAT(svg, HasSubstr("viewBox=\"0 0 960 720\""));
  EXPECT_THAT(svg, HasSubstr("<g transform=\"translate(0 300)\">"));
  EXPECT_EQ(Count(svg, "<svg"), 3U);
  EXPECT_EQ(Count(svg, "</svg>"), 3U);
}

}  // namespace
}  // namespace troupe
