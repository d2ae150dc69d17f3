#include "runtime/format/svg_chart.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "runtime/format/chart_frame.h"

namespace troupe {
namespace {

void AddSeries(ChartFrame& frame, const std::vector<ChartPoint>& points, std::string_view colour,
               bool dashed) {
  constexpr size_t kFewPoints = 40;
  frame.AddLine(points, ChartLineStyle(colour, dashed));
  if (points.size() > kFewPoints || dashed) return;
  for (const ChartPoint& point : points) {
    frame.Add(fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\" fill=\"{}\"/>\n",
                          frame.X(point.x), frame.Y(point.y), colour));
  }
}

}  // namespace

std::string LineChart(const std::vector<ChartSeries>& series, const ChartOptions& options) {
  ChartRange x;
  ChartRange y;
  for (const ChartSeries& line : series) {
    for (const ChartPoint& point : line.points) {
      if (std::isfinite(point.x) && std::isfinite(point.y) && (!options.log_y || point.y > 0)) {
        x.Add(point.x);
        y.Add(point.y);
      }
    }
  }
  x = x.Widened(0);
  if (options.log_y) {
    // A margin in ratios, so that the axis stays positive.
    y = y.empty() ? ChartRange{.low = 0.1, .high = 10}
                  : ChartRange{.low = y.low / 1.1, .high = y.high * 1.1};
  } else {
    y = y.Widened(0.06);
  }
  const ChartBox box = BoxOf(options);
  ChartFrame frame(options, box, x, y);
  ChartLegend legend(box.left);
  frame.AddAxes();
  for (size_t i = 0; i < series.size(); ++i) {
    const auto points = frame.Thinned(series[i].points);
    const std::string last =
        points.empty() ? "no points" : ChartValue(points.back().y, options.unit);
    AddSeries(frame, points, ChartColour(i), series[i].dashed);
    legend.Add(ChartLineSwatch(ChartColour(i), series[i].dashed),
               fmt::format("{} {}", series[i].name, last));
  }
  return ChartPicture(box.width, box.height, box.left, options.title, frame.svg() + legend.svg());
}

std::string ChartColumn(const std::vector<ChartPiece>& charts, int width_px) {
  int height_px = 0;
  std::string svg;
  for (const ChartPiece& chart : charts) {
    svg += fmt::format("<g transform=\"translate(0 {})\">\n{}</g>\n", height_px, chart.svg);
    height_px += chart.height_px;
  }
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
      "viewBox=\"0 0 {0} {1}\">\n{2}</svg>\n",
      width_px, height_px, svg);
}

}  // namespace troupe
