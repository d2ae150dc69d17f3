#include "runtime/format/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <string_view>

#include "runtime/format/chart_ticks.h"

namespace troupe {
namespace {

// Pixels; y grows downwards.
constexpr double kLeft = 72;
constexpr double kRight = 24;
constexpr double kTop = 74;
constexpr double kBottom = 50;
constexpr double kCharacterWidth = 6.8;  // of the 12 px text, on average

// Distinct also in grey and for the colour-blind when taken in this order.
constexpr std::array<std::string_view, 8> kPalette = {"#4878d0", "#ee854a", "#55a868", "#b47cc7",
                                                      "#e0b13c", "#56b4c9", "#9a9fa8", "#d65f78"};
std::string_view ColourOf(size_t index) { return kPalette[index % kPalette.size()]; }

constexpr std::string_view kStyle =
    "text{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'Liberation Sans','DejaVu Sans',"
    "sans-serif;font-size:12px;fill:#5c6773}.t{font-size:17px;font-weight:600;fill:#2b3440}"
    ".n{text-anchor:middle}.r{text-anchor:end}.k{fill:#2b3440}"
    ".g{stroke:#e6e9ee;stroke-width:1}.a{stroke:#9aa5b1;stroke-width:1}";

std::string Escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    safe += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  }
  return safe;
}

// Characters, not bytes: continuation bytes of UTF-8 do not count.
double TextWidth(std::string_view text) {
  const auto characters = std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  return static_cast<double>(characters) * kCharacterWidth;
}

std::string Bytes(double bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (std::abs(bytes) >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.4g} {}", bytes, kUnits[unit]);
}

std::string ValueText(double value, ChartUnit unit) {
  return unit == ChartUnit::kBytes ? Bytes(value) : fmt::format("{:.4g}", value);
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  bool empty() const { return low > high; }
  void Add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

// Widens a range without length, so that a single point stands in the middle.
Range Widened(Range range, double margin_share) {
  if (range.empty()) {
    return {.low = 0, .high = 1};
  }
  double margin = (range.high - range.low) * margin_share;
  if (range.high == range.low) {
    margin = range.low == 0 ? 1 : std::abs(range.low) * 0.1;
  }
  return {.low = range.low - margin, .high = range.high + margin};
}

class Frame {
 public:
  Frame(const ChartOptions& options, Range x, Range y)
      : options_(options),
        width_(std::max(options.width_px, 320)),
        height_(std::max(options.height_px, 200)),
        x_(x),
        y_(y) {}

  double X(double x) const {
    return kLeft + (x - x_.low) / (x_.high - x_.low) * (width_ - kLeft - kRight);
  }
  double Y(double y) const {
    const double share = options_.log_y ? std::log(y / y_.low) / std::log(y_.high / y_.low)
                                        : (y - y_.low) / (y_.high - y_.low);
    return height_ - kBottom - share * (height_ - kTop - kBottom);
  }
  double plot_width() const { return width_ - kLeft - kRight; }

  void Add(std::string_view svg) { body_ += svg; }

  void AddAxes() {
    const std::vector<double> y_ticks =
        options_.log_y
            ? LogTicks(y_.low, y_.high, 8)
            : LinearTicks(y_.low, y_.high, 8, options_.unit == ChartUnit::kBytes ? 1024 : 10);
    for (const double tick : y_ticks) {
      body_ += fmt::format(
          "<line class=\"g\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
          "<text class=\"r\" x=\"{3:.1f}\" y=\"{4:.1f}\">{5}</text>\n",
          kLeft, width_ - kRight, Y(tick), kLeft - 8, Y(tick) + 4, ValueText(tick, options_.unit));
    }
    const double base = height_ - kBottom;
    body_ += fmt::format(
        "<line class=\"a\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>\n", kLeft,
        width_ - kRight, base);
    for (const double tick : LinearTicks(x_.low, x_.high, 10)) {
      body_ += fmt::format(
          "<line class=\"a\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>"
          "<text class=\"n\" x=\"{0:.1f}\" y=\"{3:.1f}\">{4:.6g}</text>\n",
          X(tick), base, base + 4, base + 18, tick);
    }
    body_ += fmt::format("<text class=\"n\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
                         (kLeft + width_ - kRight) / 2, base + 38, Escaped(options_.x_label));
    body_ +=
        fmt::format("<text class=\"n\" transform=\"translate(16 {:.1f}) rotate(-90)\">{}</text>\n",
                    (kTop + base) / 2, Escaped(options_.y_label));
  }

  // swatch: SVG of a mark 18 px wide at (0, -9) to (18, 3).
  void AddLegend(std::string_view swatch, const std::string& text) {
    body_ += fmt::format("<g transform=\"translate({:.1f} 58)\">{}<text x=\"24\">{}</text></g>\n",
                         legend_x_, swatch, Escaped(text));
    legend_x_ += 24 + TextWidth(text) + 20;
  }

  std::string Finish() const {
    return fmt::format(
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
               "viewBox=\"0 0 {0:.0f} {1:.0f}\">\n<style>{2}</style>\n"
               "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
               "<text class=\"t\" x=\"{3:.1f}\" y=\"30\">{4}</text>\n",
               width_, height_, kStyle, kLeft, Escaped(options_.title)) +
           body_ + "</svg>\n";
  }

 private:
  const ChartOptions& options_;
  double width_;
  double height_;
  Range x_;
  Range y_;
  double legend_x_ = kLeft;
  std::string body_;
};

// Points that can be drawn, and of each pixel column no more than first, lowest, highest and last.
std::vector<ChartPoint> Thinned(const std::vector<ChartPoint>& points, bool log_y, const Range& x,
                                double plot_width) {
  std::vector<ChartPoint> drawable;
  std::ranges::copy_if(points, std::back_inserter(drawable), [log_y](const ChartPoint& point) {
    return std::isfinite(point.x) && std::isfinite(point.y) && (!log_y || point.y > 0);
  });
  if (static_cast<double>(drawable.size()) <= 4 * plot_width) {
    return drawable;
  }
  const auto column_of = [&](const ChartPoint& point) {
    return std::floor((point.x - x.low) / (x.high - x.low) * plot_width);
  };
  std::vector<ChartPoint> thinned;
  for (size_t first = 0; first < drawable.size();) {
    size_t end = first;
    size_t lowest = first;
    size_t highest = first;
    for (; end < drawable.size() && column_of(drawable[end]) == column_of(drawable[first]); ++end) {
      lowest = drawable[end].y < drawable[lowest].y ? end : lowest;
      highest = drawable[end].y > drawable[highest].y ? end : highest;
    }
    std::array<size_t, 4> kept = {first, std::min(lowest, highest), std::max(lowest, highest),
                                  end - 1};
    for (size_t i = 0; i < kept.size(); ++i) {
      if (i == 0 || kept[i] != kept[i - 1]) {
        thinned.push_back(drawable[kept[i]]);
      }
    }
    first = end;
  }
  return thinned;
}

std::string PointList(const Frame& frame, const std::vector<ChartPoint>& points) {
  std::string list;
  for (const ChartPoint& point : points) {
    list += fmt::format("{:.1f},{:.1f} ", frame.X(point.x), frame.Y(point.y));
  }
  return list;
}

std::string LineStyle(std::string_view colour, bool dashed) {
  return fmt::format("fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"{}",
                     colour, dashed ? " stroke-dasharray=\"6 4\"" : "");
}

std::string LineSwatch(std::string_view colour, bool dashed) {
  return fmt::format("<path d=\"M0 -4H18\" {}/>", LineStyle(colour, dashed));
}

std::string AreaSwatch(std::string_view colour) {
  return fmt::format("<rect y=\"-10\" width=\"16\" height=\"12\" rx=\"1\" fill=\"{}\"/>", colour);
}

void AddLine(Frame& frame, const std::vector<ChartPoint>& points, std::string_view colour,
             bool dashed) {
  constexpr size_t kFewPoints = 40;
  frame.Add(fmt::format("<polyline {} points=\"{}\"/>\n", LineStyle(colour, dashed),
                        PointList(frame, points)));
  if (points.size() <= kFewPoints && !dashed) {
    for (const ChartPoint& point : points) {
      frame.Add(fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\" fill=\"{}\"/>\n",
                            frame.X(point.x), frame.Y(point.y), colour));
    }
  }
}

double Sum(const StackedSample& sample) {
  return std::accumulate(sample.values.begin(), sample.values.end(), 0.0);
}

// The highest sample of each pixel column, and the ends.
std::vector<StackedSample> ThinnedSamples(const std::vector<StackedSample>& samples, const Range& x,
                                          double plot_width) {
  if (static_cast<double>(samples.size()) <= 2 * plot_width) {
    return samples;
  }
  std::vector<StackedSample> thinned = {samples.front()};
  double last_column = -1;
  for (const StackedSample& sample : samples) {
    const double column = std::floor((sample.x - x.low) / (x.high - x.low) * plot_width);
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

// The outline of the layers below `layer`, left to right; stepped adds the corner before each rise.
std::vector<ChartPoint> Outline(const std::vector<StackedSample>& samples, size_t layer,
                                bool stepped) {
  std::vector<ChartPoint> outline;
  for (const StackedSample& sample : samples) {
    const double y = std::accumulate(sample.values.begin(),
                                     sample.values.begin() + static_cast<int64_t>(layer), 0.0);
    if (stepped && !outline.empty()) {
      outline.push_back({.x = sample.x, .y = outline.back().y});
    }
    outline.push_back({.x = sample.x, .y = y});
  }
  return outline;
}

// Baseline of the peak's label: just above the peak, and where the predicted line would cross the
// text, above that line.
double PeakBaseline(const Frame& frame, double peak, const std::vector<ChartPoint>& predicted) {
  constexpr double kAscent = 12;  // of the 12 px text, with air
  constexpr double kDescent = 5;
  double baseline = frame.Y(peak) - 7;
  for (const ChartPoint& point : predicted) {
    const double line = frame.Y(point.y);
    if (line > baseline - kAscent && line < baseline + kDescent) baseline = line - kDescent;
  }
  return std::max(baseline, kTop);
}

void AddPeak(Frame& frame, const std::vector<StackedSample>& samples,
             const std::vector<ChartPoint>& predicted, ChartUnit unit) {
  const StackedSample& peak = *std::ranges::max_element(samples, {}, Sum);
  const double x = frame.X(peak.x);
  const bool at_right_edge = x > kLeft + frame.plot_width() * 0.8;
  frame.Add(
      fmt::format("<circle cx=\"{0:.1f}\" cy=\"{1:.1f}\" r=\"3\" fill=\"#2b3440\"/>"
                  "<text class=\"k{2}\" x=\"{3:.1f}\" y=\"{4:.1f}\">peak {5}</text>\n",
                  x, frame.Y(Sum(peak)), at_right_edge ? " r" : "", x + (at_right_edge ? -8 : 8),
                  PeakBaseline(frame, Sum(peak), predicted), ValueText(Sum(peak), unit)));
}

}  // namespace

std::string LineChart(const std::vector<ChartSeries>& series, const ChartOptions& options) {
  Range x;
  Range y;
  for (const ChartSeries& line : series) {
    for (const ChartPoint& point : line.points) {
      if (std::isfinite(point.x) && std::isfinite(point.y) && (!options.log_y || point.y > 0)) {
        x.Add(point.x);
        y.Add(point.y);
      }
    }
  }
  x = Widened(x, 0);
  if (options.log_y) {
    // A margin in ratios, so that the axis stays positive.
    y = y.empty() ? Range{.low = 0.1, .high = 10} : Range{.low = y.low / 1.1, .high = y.high * 1.1};
  } else {
    y = Widened(y, 0.06);
  }
  Frame frame(options, x, y);
  frame.AddAxes();
  for (size_t i = 0; i < series.size(); ++i) {
    const auto points = Thinned(series[i].points, options.log_y, x, frame.plot_width());
    const std::string last =
        points.empty() ? "no points" : ValueText(points.back().y, options.unit);
    AddLine(frame, points, ColourOf(i), series[i].dashed);
    frame.AddLegend(LineSwatch(ColourOf(i), series[i].dashed),
                    fmt::format("{} {}", series[i].name, last));
  }
  return frame.Finish();
}

std::string StackedAreaChart(const StackedData& data, const ChartOptions& options) {
  constexpr std::string_view kPredictedColour = "#2b3440";
  ChartOptions linear = options;
  linear.log_y = false;
  Range x;
  Range y{.low = 0, .high = 0};
  for (const StackedSample& sample : data.samples) {
    x.Add(sample.x);
    y.Add(Sum(sample));
  }
  for (const ChartPoint& point : data.predicted.points) {
    x.Add(point.x);
    y.Add(point.y);
  }
  x = Widened(x, 0);
  y.high = y.high > 0 ? y.high * 1.08 : 1;
  Frame frame(linear, x, y);
  frame.AddAxes();
  const auto samples = ThinnedSamples(data.samples, x, frame.plot_width());
  for (size_t layer = 0; layer < data.layers.size(); ++layer) {
    std::vector<ChartPoint> outline = Outline(samples, layer, options.stepped);
    const std::vector<ChartPoint> top = Outline(samples, layer + 1, options.stepped);
    outline.insert(outline.end(), top.rbegin(), top.rend());
    frame.Add(fmt::format("<polygon fill=\"{0}\" fill-opacity=\".88\" points=\"{1}\"/>\n",
                          ColourOf(layer), PointList(frame, outline)));
    frame.AddLegend(AreaSwatch(ColourOf(layer)), data.layers[layer]);
  }
  if (!samples.empty()) {
    AddPeak(frame, samples, data.predicted.points, options.unit);
  }
  if (!data.predicted.points.empty()) {
    AddLine(frame, data.predicted.points, kPredictedColour, true);
    frame.AddLegend(LineSwatch(kPredictedColour, true),
                    fmt::format("{} {}", data.predicted.name,
                                ValueText(data.predicted.points.back().y, options.unit)));
  }
  return frame.Finish();
}

}  // namespace troupe
