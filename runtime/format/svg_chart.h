// Line charts as SVG text (loss over steps), and what all charts share; stacked_chart.h has the
// others. Called by the coordinator when a run's pictures are written. Pure: numbers in, text out;
// any thread. Points that are not finite, and on a logarithmic axis not positive, are left out.
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

// Finished charts below one another, as one picture.
struct ChartPiece {
  std::string svg{};
  int height_px = 0;
};
std::string ChartColumn(const std::vector<ChartPiece>& charts, int width_px);

}  // namespace troupe
