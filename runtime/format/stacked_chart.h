// Stacked areas over time as SVG text: memory by tag. Called by the coordinator when a run's
// pictures are written. Pure: numbers in, text out; any thread.
#pragma once

#include <string>
#include <vector>

#include "runtime/format/svg_chart.h"

namespace troupe {

// One sample in time: a value for every layer, in the order of `layers`.
struct StackedSample {
  double x = 0;
  std::vector<double> values{};
};
struct StackedData {
  std::vector<std::string> layers{};     // bottom first
  std::vector<StackedSample> samples{};  // ascending x
  ChartSeries predicted{};               // of the sum; drawn dashed, none where empty
  ChartSeries around{};                  // what the layers are a part of; likewise, as a thin line
};

// Areas from zero up, linear. Where samples are thinned the highest of each pixel stays, so that a
// peak is never lost; the peak is marked with its value.
std::string StackedAreaChart(const StackedData& data, const ChartOptions& options);

// Several such charts in rows of two, on the same axes and under one title and legend; the layers
// are the first one's. `options` is of the whole picture.
struct StackedPanel {
  std::string title{};  // the predicted value is added to it
  StackedData data{};
};
std::string StackedPanels(const std::vector<StackedPanel>& panels, const ChartOptions& options);

}  // namespace troupe
