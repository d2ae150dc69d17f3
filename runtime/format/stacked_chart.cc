#include "runtime/format/stacked_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string_view>

#include "runtime/format/chart_frame.h"

namespace troupe {
namespace {

constexpr std::string_view kPredictedColour = "#2b3440";
constexpr std::string_view kAroundStyle =
    "fill=\"none\" stroke=\"#2b3440\" stroke-width=\".8\" stroke-linejoin=\"round\"";

double Sum(const StackedSample& sample) {
  return std::accumulate(sample.values.begin(), sample.values.end(), 0.0);
}

void AddTo(ChartRange& x, ChartRange& y, const StackedData& data) {
  for (const StackedSample& sample : data.samples) {
    x.Add(sample.x);
    y.Add(Sum(sample));
  }
  for (const ChartSeries* line : {&data.predicted, &data.around}) {
    for (const ChartPoint& point : line->points) {
      x.Add(point.x);
      y.Add(point.y);
    }
  }
}

// The highest sample of each pixel column, and the ends.
std::vector<StackedSample> ThinnedSamples(const ChartFrame& frame,
                                          const std::vector<StackedSample>& samples) {
  if (static_cast<double>(samples.size()) <= 2 * frame.plot_width()) {
    return samples;
  }
  std::vector<StackedSample> thinned = {samples.front()};
  double last_column = -1;
  for (const StackedSample& sample : samples) {
    const double column = std::floor(frame.X(sample.x) - frame.left());
    if (column != last_column) {
      thinned.push_back(sample);
      last_column = column;
    } else if (Sum(sample) > Sum(thinned.back())) {
      thinned.back() = sample;
    }
  }
  thinned.push_back(samples.back());
  return thinned;
}

// With the corner before each change.
std::vector<ChartPoint> Stepped(const std::vector<ChartPoint>& points) {
  std::vector<ChartPoint> stepped;
  for (const ChartPoint& point : points) {
    if (!stepped.empty()) stepped.push_back({.x = point.x, .y = stepped.back().y});
    stepped.push_back(point);
  }
  return stepped;
}

// The outline of the layers below `layer`, left to right.
std::vector<ChartPoint> Outline(const std::vector<StackedSample>& samples, size_t layer,
                                bool stepped) {
  std::vector<ChartPoint> outline;
  for (const StackedSample& sample : samples) {
    const double y = std::accumulate(sample.values.begin(),
                                     sample.values.begin() + static_cast<int64_t>(layer), 0.0);
    outline.push_back({.x = sample.x, .y = y});
  }
  return stepped ? Stepped(outline) : outline;
}

// Baseline of the peak's label: just above the peak, and where a line would cross the text, above
// that line.
double PeakBaseline(const ChartFrame& frame, const StackedSample& peak, const StackedData& data) {
  constexpr double kAscent = 12;  // of the 12 px text, with air
  constexpr double kDescent = 5;
  constexpr double kWidth = 110;
  std::vector<double> lines;
  for (const ChartPoint& point : data.predicted.points) lines.push_back(frame.Y(point.y));
  const auto& around = data.around.points;
  for (size_t i = 0; i < around.size(); ++i) {
    const double end = i + 1 < around.size() ? frame.X(around[i + 1].x) : frame.X(around[i].x);
    const double x = frame.X(peak.x);
    if (frame.X(around[i].x) < x + kWidth && end > x - kWidth)
      lines.push_back(frame.Y(around[i].y));
  }
  std::ranges::sort(lines, std::greater());  // the lowest first: the label only goes up
  double baseline = frame.Y(Sum(peak)) - 7;
  for (const double line : lines) {
    if (line > baseline - kAscent && line < baseline + kDescent) baseline = line - kDescent;
  }
  return std::max(baseline, frame.top());
}

void AddPeak(ChartFrame& frame, const StackedData& data, const std::vector<StackedSample>& samples,
             ChartUnit unit) {
  const StackedSample& peak = *std::ranges::max_element(samples, {}, Sum);
  const double x = frame.X(peak.x);
  const bool at_right_edge = x > frame.left() + frame.plot_width() * 0.8;
  frame.Add(
      fmt::format("<circle cx=\"{0:.1f}\" cy=\"{1:.1f}\" r=\"3\" fill=\"#2b3440\"/>"
                  "<text class=\"k{2}\" x=\"{3:.1f}\" y=\"{4:.1f}\">peak {5}</text>\n",
                  x, frame.Y(Sum(peak)), at_right_edge ? " r" : "", x + (at_right_edge ? -8 : 8),
                  PeakBaseline(frame, peak, data), ChartValue(Sum(peak), unit)));
}

void AddStack(ChartFrame& frame, const StackedData& data, const ChartOptions& options) {
  frame.AddAxes();
  const auto samples = ThinnedSamples(frame, data.samples);
  for (size_t layer = 0; layer < data.layers.size(); ++layer) {
    std::vector<ChartPoint> outline = Outline(samples, layer, options.stepped);
    const std::vector<ChartPoint> top = Outline(samples, layer + 1, options.stepped);
    outline.insert(outline.end(), top.rbegin(), top.rend());
    frame.Add(fmt::format("<polygon fill=\"{0}\" fill-opacity=\".88\" points=\"{1}\"/>\n",
                          ChartColour(layer), frame.PointList(outline)));
  }
  if (!data.around.points.empty()) {
    const auto points = frame.Thinned(data.around.points);
    frame.AddLine(options.stepped ? Stepped(points) : points, kAroundStyle);
  }
  if (!samples.empty()) AddPeak(frame, data, samples, options.unit);
  if (!data.predicted.points.empty()) {
    frame.AddLine(data.predicted.points, ChartLineStyle(kPredictedColour, /*dashed=*/true));
  }
}

void AddLegend(ChartLegend& legend, const StackedData& data, std::string_view predicted) {
  for (size_t layer = 0; layer < data.layers.size(); ++layer) {
    legend.Add(ChartAreaSwatch(ChartColour(layer)), data.layers[layer]);
  }
  if (!data.around.points.empty()) {
    legend.Add(fmt::format("<path d=\"M0 -4H18\" {}/>", kAroundStyle), data.around.name);
  }
  if (!data.predicted.points.empty()) {
    legend.Add(ChartLineSwatch(kPredictedColour, /*dashed=*/true), predicted);
  }
}

std::string PredictedText(const StackedData& data, ChartUnit unit) {
  if (data.predicted.points.empty()) return "";
  return fmt::format("{} {}", data.predicted.name,
                     ChartValue(data.predicted.points.back().y, unit));
}

}  // namespace

std::string StackedAreaChart(const StackedData& data, const ChartOptions& options) {
  ChartOptions linear = options;
  linear.log_y = false;
  ChartRange x;
  ChartRange y{.low = 0, .high = 0};
  AddTo(x, y, data);
  x = x.Widened(0);
  y.high = y.high > 0 ? y.high * 1.08 : 1;
  const ChartBox box = BoxOf(options);
  ChartFrame frame(linear, box, x, y);
  AddStack(frame, data, linear);
  ChartLegend legend(box.left);
  AddLegend(legend, data, PredictedText(data, options.unit));
  return ChartPicture(box.width, box.height, box.left, options.title, frame.svg() + legend.svg());
}

std::string StackedPanels(const std::vector<StackedPanel>& panels, const ChartOptions& options) {
  constexpr double kPanelTop = 26;
  constexpr double kPanelBottom = 26;  // of the ticks; the last row has the axis' name besides
  constexpr double kNameHeight = 20;
  const ChartBox whole = BoxOf(options);
  const size_t num_columns = std::min<size_t>(panels.size(), 2);
  const size_t num_rows = (panels.size() + 1) / 2;
  ChartRange x;
  ChartRange y{.low = 0, .high = 0};
  for (const StackedPanel& panel : panels) AddTo(x, y, panel.data);
  x = x.Widened(0);
  y.high = y.high > 0 ? y.high * 1.25 : 1;  // room for the peak's label
  std::string svg;
  for (size_t i = 0; i < panels.size(); ++i) {
    const bool last_row = i + num_columns >= panels.size();
    ChartOptions own = options;
    own.log_y = false;
    own.y_label.clear();
    if (!last_row) own.x_label.clear();
    const double height = (whole.height - whole.top - kNameHeight) / static_cast<double>(num_rows);
    const ChartBox box{.width = whole.width / static_cast<double>(num_columns),
                       .height = height,
                       .top = kPanelTop,
                       .bottom = kPanelBottom};
    ChartFrame frame(own, box, x, y);
    AddStack(frame, panels[i].data, own);
    const std::string predicted = PredictedText(panels[i].data, options.unit);
    svg += fmt::format(
        "<g transform=\"translate({:.1f} {:.1f})\">\n<text class=\"k\" x=\"{:.1f}\" y=\"16\">{}{}"
        "</text>\n{}</g>\n",
        static_cast<double>(i % num_columns) * box.width,
        whole.top + static_cast<double>(i / num_columns) * height, box.left,
        ChartText(panels[i].title), predicted.empty() ? "" : " · " + ChartText(predicted),
        frame.svg());
  }
  ChartLegend legend(whole.left);
  if (!panels.empty()) AddLegend(legend, panels.front().data, panels.front().data.predicted.name);
  return ChartPicture(whole.width, whole.height, whole.left, options.title, svg + legend.svg());
}

}  // namespace troupe
