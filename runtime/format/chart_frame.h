// ChartFrame: the axes of a chart and what is drawn within them, as SVG text. Used by the charts of
// this folder (svg_chart.h, stacked_chart.h). Pure; one thread. Pixels; y grows downwards.
#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/format/svg_chart.h"

namespace troupe {

struct ChartRange {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  bool empty() const { return low > high; }
  void Add(double value);
  // So that a single point stands in the middle.
  ChartRange Widened(double margin_share) const;
};

// Where the plot lies in its chart.
struct ChartBox {
  double width = 0;
  double height = 0;
  double left = 72;
  double right = 24;
  double top = 74;
  double bottom = 50;
};
// Of a chart with a picture of its own: as wide and high as asked for, within reason.
ChartBox BoxOf(const ChartOptions& options);

// ---- words and marks ----------------------------------------------------------------------------

std::string ChartText(std::string_view text);  // escaped
std::string ChartValue(double value, ChartUnit unit);
// Distinct also in grey and for the colour-blind when taken in this order.
std::string_view ChartColour(size_t index);
std::string ChartLineStyle(std::string_view colour, bool dashed);
std::string ChartLineSwatch(std::string_view colour, bool dashed);
std::string ChartAreaSwatch(std::string_view colour);

// A row of marks with their names, under a chart's title.
class ChartLegend {
 public:
  explicit ChartLegend(double left) : x_(left) {}
  // swatch: SVG of a mark 18 px wide at (0, -9) to (18, 3).
  void Add(std::string_view swatch, std::string_view text);
  const std::string& svg() const { return svg_; }

 private:
  double x_;
  std::string svg_{};
};

class ChartFrame {
 public:
  ChartFrame(const ChartOptions& options, const ChartBox& box, ChartRange x, ChartRange y)
      : options_(options), box_(box), x_(x), y_(y) {}

  double X(double x) const;
  double Y(double y) const;
  double left() const { return box_.left; }
  double top() const { return box_.top; }
  double plot_width() const { return box_.width - box_.left - box_.right; }
  double plot_height() const { return box_.height - box_.top - box_.bottom; }

  // With ticks as far apart as their words need.
  void AddAxes();
  void AddLine(const std::vector<ChartPoint>& points, std::string_view style);
  void Add(std::string_view svg) { svg_ += svg; }

  // Those that can be drawn, and of each pixel column no more than first, lowest, highest and last.
  std::vector<ChartPoint> Thinned(const std::vector<ChartPoint>& points) const;
  std::string PointList(const std::vector<ChartPoint>& points) const;  // of a polyline or polygon

  const std::string& svg() const { return svg_; }

 private:
  const ChartOptions& options_;
  const ChartBox box_;
  const ChartRange x_;
  const ChartRange y_;
  std::string svg_{};
};

// A whole picture; `title` stands at the top, from `left` on.
std::string ChartPicture(double width, double height, double left, std::string_view title,
                         std::string_view svg);

}  // namespace troupe
