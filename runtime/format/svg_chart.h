// Charts as SVG text: lines over steps (loss) and stacked areas over time (memory by tag). Called
// by the coordinator when a run's pictures are written. Pure: numbers in, text out; any thread.
// Points that are not finite, and on a logarithmic axis not positive, are left out.
#pragma once

#include <string>
#include <vector>

namespace troupe {

struct ChartPoint {
  double x = 0;
  double y = 0;
};

struct ChartSeries {
  std::string name{};
  std::vector<ChartPoint> points{};  // ascending x
  bool dashed = false;
};

// How y values read: plain numbers, or bytes in powers of 1024.
enum class ChartUnit { kNumber, kBytes };

struct ChartOptions {
  std::string title{};
  std::string x_label{};  // "step", "time (ms)"
  std::string y_label{};  // "loss"; for bytes the axis names its unit itself
  bool log_y = false;
  ChartUnit unit = ChartUnit::kNumber;
  bool stepped = false;  // stacked areas: a value holds until the next sample
  int width_px = 960;
  int height_px = 420;
};

// One line a series, its last value in the legend. Series with few points (validation) get dots.
// More points than pixels are thinned to each pixel's extremes.
std::string LineChart(const std::vector<ChartSeries>& series, const ChartOptions& options);

// One sample in time: a value for every layer, in the order of `layers`.
struct StackedSample {
  double x = 0;
  std::vector<double> values{};
};
struct StackedData {
  std::vector<std::string> layers{};     // bottom first
  std::vector<StackedSample> samples{};  // ascending x
  ChartSeries predicted{};               // of the sum; drawn dashed, none where empty
};

// Areas from zero up, linear. Where samples are thinned the highest of each pixel stays, so that a
// peak is never lost; the peak is marked with its value.
std::string StackedAreaChart(const StackedData& data, const ChartOptions& options);

}  // namespace troupe
