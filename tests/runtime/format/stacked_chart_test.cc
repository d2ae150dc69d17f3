#include "runtime/format/stacked_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

TEST(StackedAreaChart, WhatTheLayersAreAPartOfIsAThinLine) {
  StackedData data = TwoLayers();
  data.around = {.name = "allocated", .points = {{0, 1 << 24}, {1, 1 << 24}, {2, 3 << 23}}};
  const std::string svg = StackedAreaChart(data, {.unit = ChartUnit::kBytes, .stepped = true});
  EXPECT_EQ(Count(svg, "<polyline"), 2U);
  EXPECT_EQ(Count(PointsOf(svg, 2), ","), 5U) << "with the corners of its steps";
  EXPECT_THAT(svg, HasSubstr(">allocated</text>"));
  EXPECT_THAT(svg, HasSubstr(">24 MiB</text>")) << "the axis has room for it";
}

StackedPanel PanelOf(std::string title, double peak, double predicted) {
  return {
      .title = std::move(title),
      .data = {.layers = {"params", "activations"},
               .samples = {{0, {10, 0}}, {4, {10, peak - 10}}, {8, {10, 0}}},
               .predicted = {.name = "predicted peak", .points = {{0, predicted}, {8, predicted}}},
               .around = {.name = "allocated", .points = {{0, peak}, {8, peak}}}}};
}

TEST(StackedPanels, StandInRowsOfTwoOnTheSameAxesUnderOneLegend) {
  const std::string svg = StackedPanels(
      {PanelOf("rank 0", 60, 64), PanelOf("rank <1>", 40, 44), PanelOf("rank 2", 20, 24)},
      {.title = "memory", .x_label = "time (ms)", .height_px = 400});
  EXPECT_EQ(Count(svg, "<polygon"), 6U);
  EXPECT_EQ(Count(svg, ">params</text>"), 1U);
  EXPECT_EQ(Count(svg, ">allocated</text>"), 1U);
  EXPECT_EQ(Count(svg, ">predicted peak</text>"), 1U);
  EXPECT_THAT(svg, HasSubstr("rank 0 · predicted peak 64</text>"));
  EXPECT_THAT(svg, HasSubstr("rank &lt;1&gt; · predicted peak 44</text>"));
  EXPECT_EQ(Count(svg, "time (ms)"), 2U) << "where nothing stands below";
  for (const char* peak : {"peak 60<", "peak 40<", "peak 20<"}) EXPECT_THAT(svg, HasSubstr(peak));
  EXPECT_THAT(svg, HasSubstr("<g transform=\"translate(480.0 74.0)\">"));
  EXPECT_THAT(svg, HasSubstr("<g transform=\"translate(0.0 227.0)\">"));
  // The base layer is as high in each: the axes are the same.
  EXPECT_EQ(PointsOf(svg, 0), PointsOf(svg, 4));
  EXPECT_EQ(Count(svg, "<g"), Count(svg, "</g>"));
}

TEST(StackedPanels, SurviveOneAndNone) {
  const std::string one = StackedPanels({PanelOf("rank 0", 60, 64)}, {.height_px = 400});
  EXPECT_THAT(one, HasSubstr(" 936.0,"));
  const std::string none = StackedPanels({}, {});
  const std::string empty = StackedPanels({{.title = "rank 0"}}, {});
  EXPECT_THAT(one + none + empty, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace troupe
