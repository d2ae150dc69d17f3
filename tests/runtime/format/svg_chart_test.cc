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

StackedData TwoLayers() {
  constexpr double kMiB = 1024.0 * 1024.0;
  return {.layers = {"params", "activations"},
          .samples = {{0, {10 * kMiB, 0}}, {1, {10 * kMiB, 6 * kMiB}}, {2, {10 * kMiB, 2 * kMiB}}},
          .predicted = {.name = "predicted peak", .points = {{0, 15 * kMiB}, {2, 15 * kMiB}}}};
}

TEST(StackedAreaChart, StacksLayersFromZero) {
  const std::string svg =
      StackedAreaChart(TwoLayers(), {.unit = ChartUnit::kBytes, .width_px = 960, .height_px = 420});
  EXPECT_EQ(Count(svg, "<polygon"), 2U);
  EXPECT_EQ(Count(svg, "<polyline"), 1U);
  // The lower layer closes along the base line at 370.
  EXPECT_THAT(PointsOf(svg, 0), HasSubstr("72.0,370.0 504.0,370.0 936.0,370.0 936.0,"));
  // The upper one starts where the lower ends: 10 of 17.28 MiB over 296 px.
  EXPECT_THAT(PointsOf(svg, 1), HasSubstr("72.0,198.7 504.0,198.7 936.0,198.7 "));
  EXPECT_THAT(svg, HasSubstr("peak 16 MiB"));
  EXPECT_THAT(svg, HasSubstr(">8 MiB</text>"));
  EXPECT_THAT(svg, HasSubstr("predicted peak 15 MiB"));
  EXPECT_EQ(Count(svg, "stroke-dasharray"), 2U);
}

TEST(StackedAreaChart, StepsHoldUntilTheNextSample) {
  const std::string svg = StackedAreaChart(TwoLayers(), {.stepped = true});
  EXPECT_EQ(Count(PointsOf(svg, 0), ","), 10U);  // 3 samples and 2 corners, there and back
}

TEST(StackedAreaChart, NeverLosesThePeak) {
  StackedData data{.layers = {"params"}};
  for (int i = 0; i < 50'000; ++i) {
    data.samples.push_back({static_cast<double>(i), {i == 12'345 ? 777.0 : 100.0}});
  }
  const std::string svg = StackedAreaChart(data, {});
  EXPECT_THAT(svg, HasSubstr("peak 777"));
  EXPECT_LT(Count(PointsOf(svg, 0), ","), 2U * 900);
}

// Heights of the peak's label and of the predicted line, pixels.
std::pair<double, double> LabelAndLine(double peak, double predicted) {
  const StackedData data{
      .layers = {"params"},
      .samples = {{0, {peak}}, {1, {peak / 2}}},
      .predicted = {.name = "predicted", .points = {{0, predicted}, {1, predicted}}}};
  const std::string svg = StackedAreaChart(data, {});
  const size_t text = svg.rfind(" y=\"", svg.find(">peak "));
  const size_t line = svg.find(',', svg.find("<polyline"));
  return {std::stod(svg.substr(text + 4)), std::stod(svg.substr(line + 1))};
}

TEST(StackedAreaChart, ThePeaksLabelKeepsOffThePredictedLine) {
  for (const double predicted : {80.0, 97.0, 98.0, 100.0, 102.0, 104.0, 106.0, 110.0, 130.0}) {
    const auto [label, line] = LabelAndLine(100, predicted);
    EXPECT_TRUE(line >= label + 4 || line <= label - 11)
        << predicted << ": " << label << " " << line;
    EXPECT_GE(label, 74) << "inside the plot";
  }
}

TEST(StackedAreaChart, SurvivesNoSamples) {
  const std::string svg = StackedAreaChart({.layers = {"params"}}, {});
  EXPECT_THAT(svg, HasSubstr("params"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace troupe
