#include "runtime/format/chart_frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "runtime/format/chart_ticks.h"

namespace troupe {
namespace {

constexpr double kCharacterWidth = 6.8;  // of the 12 px text, on average

constexpr std::array<std::string_view, 8> kPalette = {"#4878d0", "#ee854a", "#55a868", "#b47cc7",
                                                      "#e0b13c", "#56b4c9", "#9a9fa8", "#d65f78"};

constexpr std::string_view kStyle =
    "text{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'Liberation Sans','DejaVu Sans',"
    "sans-serif;font-size:12px;fill:#5c6773}.t{font-size:17px;font-weight:600;fill:#2b3440}"
    ".n{text-anchor:middle}.r{text-anchor:end}.k{fill:#2b3440}"
    ".g{stroke:#e6e9ee;stroke-width:1}.a{stroke:#9aa5b1;stroke-width:1}";

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

// So many ticks have room, each with `pixels` of its own.
int TicksIn(double length, double pixels, int most) {
  return std::clamp(static_cast<int>(length / pixels), 3, most);
}

}  // namespace

void ChartRange::Add(double value) {
  low = std::min(low, value);
  high = std::max(high, value);
}

ChartRange ChartRange::Widened(double margin_share) const {
  if (empty()) {
    return {.low = 0, .high = 1};
  }
  double margin = (high - low) * margin_share;
  if (high == low) {
    margin = low == 0 ? 1 : std::abs(low) * 0.1;
  }
  return {.low = low - margin, .high = high + margin};
}

ChartBox BoxOf(const ChartOptions& options) {
  return {.width = static_cast<double>(std::max(options.width_px, 320)),
          .height = static_cast<double>(std::max(options.height_px, 200))};
}

// ---- words and marks ----------------------------------------------------------------------------

std::string ChartText(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    safe += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  }
  return safe;
}

std::string ChartValue(double value, ChartUnit unit) {
  return unit == ChartUnit::kBytes ? Bytes(value) : fmt::format("{:.4g}", value);
}

std::string_view ChartColour(size_t index) { return kPalette[index % kPalette.size()]; }

std::string ChartLineStyle(std::string_view colour, bool dashed) {
  return fmt::format("fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"{}",
                     colour, dashed ? " stroke-dasharray=\"6 4\"" : "");
}

std::string ChartLineSwatch(std::string_view colour, bool dashed) {
  return fmt::format("<path d=\"M0 -4H18\" {}/>", ChartLineStyle(colour, dashed));
}

std::string ChartAreaSwatch(std::string_view colour) {
  return fmt::format("<rect y=\"-10\" width=\"16\" height=\"12\" rx=\"1\" fill=\"{}\"/>", colour);
}

void ChartLegend::Add(std::string_view swatch, std::string_view text) {
  svg_ += fmt::format("<g transform=\"translate({:.1f} 58)\">{}<text x=\"24\">{}</text></g>\n", x_,
                      swatch, ChartText(text));
  x_ += 24 + TextWidth(text) + 20;
}

// ---- the frame ----------------------------------------------------------------------------------

double ChartFrame::X(double x) const {
  return box_.left + (x - x_.low) / (x_.high - x_.low) * plot_width();
}

double ChartFrame::Y(double y) const {
  const double share = options_.log_y ? std::log(y / y_.low) / std::log(y_.high / y_.low)
                                      : (y - y_.low) / (y_.high - y_.low);
  return box_.height - box_.bottom - share * plot_height();
}

void ChartFrame::AddAxes() {
  const int y_wanted = TicksIn(plot_height(), 37, 8);
  const int base_of_steps = options_.unit == ChartUnit::kBytes ? 1024 : 10;
  const std::vector<double> y_ticks = options_.log_y
                                          ? LogTicks(y_.low, y_.high, y_wanted)
                                          : LinearTicks(y_.low, y_.high, y_wanted, base_of_steps);
  const double end = box_.width - box_.right;
  for (const double tick : y_ticks) {
    svg_ += fmt::format(
        "<line class=\"g\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
        "<text class=\"r\" x=\"{3:.1f}\" y=\"{4:.1f}\">{5}</text>\n",
        box_.left, end, Y(tick), box_.left - 8, Y(tick) + 4, ChartValue(tick, options_.unit));
  }
  const double base = box_.height - box_.bottom;
  svg_ += fmt::format(
      "<line class=\"a\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>\n",
      box_.left, end, base);
  for (const double tick : LinearTicks(x_.low, x_.high, TicksIn(plot_width(), 86, 10))) {
    svg_ += fmt::format(
        "<line class=\"a\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>"
        "<text class=\"n\" x=\"{0:.1f}\" y=\"{3:.1f}\">{4:.6g}</text>\n",
        X(tick), base, base + 4, base + 18, tick);
  }
  if (!options_.x_label.empty()) {
    svg_ += fmt::format("<text class=\"n\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
                        (box_.left + end) / 2, base + 38, ChartText(options_.x_label));
  }
  if (!options_.y_label.empty()) {
    svg_ +=
        fmt::format("<text class=\"n\" transform=\"translate(16 {:.1f}) rotate(-90)\">{}</text>\n",
                    (box_.top + base) / 2, ChartText(options_.y_label));
  }
}

void ChartFrame::AddLine(const std::vector<ChartPoint>& points, std::string_view style) {
  svg_ += fmt::format("<polyline {} points=\"{}\"/>\n", style, PointList(points));
}

std::vector<ChartPoint> ChartFrame::Thinned(const std::vector<ChartPoint>& points) const {
  std::vector<ChartPoint> drawable;
  std::ranges::copy_if(points, std::back_inserter(drawable), [this](const ChartPoint& point) {
    return std::isfinite(point.x) && std::isfinite(point.y) && (!options_.log_y || point.y > 0);
  });
  if (static_cast<double>(drawable.size()) <= 4 * plot_width()) {
    return drawable;
  }
  const auto column_of = [this](const ChartPoint& point) {
    return std::floor((point.x - x_.low) / (x_.high - x_.low) * plot_width());
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

std::string ChartFrame::PointList(const std::vector<ChartPoint>& points) const {
  std::string list;
  for (const ChartPoint& point : points) {
    list += fmt::format("{:.1f},{:.1f} ", X(point.x), Y(point.y));
  }
  return list;
}

std::string ChartPicture(double width, double height, double left, std::string_view title,
                         std::string_view svg) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\">\n<style>{2}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
      "<text class=\"t\" x=\"{3:.1f}\" y=\"30\">{4}</text>\n{5}</svg>\n",
      width, height, kStyle, left, ChartText(title), svg);
}

}  // namespace troupe
