#include "actors/schedule/svg_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace troupe {
namespace {

constexpr double kTableRow = 20;

constexpr std::string_view kStyle =
    "text{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'Liberation Sans','DejaVu Sans',"
    "sans-serif;fill:#2b3440}"
    ".t{font-size:17px;font-weight:600}.p{font-size:13px;font-weight:600}"
    ".s{font-size:12px;fill:#5c6773}.d{font-size:13px}.n{text-anchor:middle}.r{text-anchor:end}"
    ".g{stroke:#e3e7ec;stroke-width:1}.a{stroke:#9aa5b1;stroke-width:1}"
    ".o{fill:none;stroke:#16202e;stroke-width:1}"
    ".z{fill:url(#idle)}.q{fill:#e8705f;fill-opacity:.82}"
    ".u{fill:#f3c969}.v{fill:#b4bdc8}.x{fill:#b79ad9}";

constexpr std::string_view kIdlePattern =
    "<defs><pattern id=\"idle\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
    "patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"#f3f5f8\"/><rect "
    "width=\"1.4\" height=\"6\" fill=\"#dde2e9\"/></pattern></defs>\n";

std::vector<double> ColumnWidths(const SvgPage::Rows& rows) {
  std::vector<double> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) {
      // Letters, not bytes.
      const auto letters = std::ranges::count_if(
          row[i], [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
      widths[i] = std::max(widths[i], 7.6 * static_cast<double>(letters) + (i == 0 ? 0 : 20));
    }
  }
  return widths;
}

}  // namespace

std::string SvgEscaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    safe += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  }
  return safe;
}

double NiceStep(double length, int wanted) {
  const double raw = length / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw * 0.999) {
      return factor * power;
    }
  }
  return 10 * power;
}

void SvgPage::Text(std::string_view css_class, double x, double y, std::string_view safe_text) {
  body_ += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", css_class, x, y,
                       safe_text);
}

void SvgPage::Rect(std::string_view css_class, double x, double y, double width, double height,
                   double rounding, std::string_view tooltip) {
  body_ +=
      fmt::format("<rect class=\"{}\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\"",
                  css_class, x, y, width, height);
  if (rounding > 0) {
    body_ += fmt::format(" rx=\"{}\"", rounding);
  }
  body_ +=
      tooltip.empty() ? std::string("/>\n") : fmt::format("><title>{}</title></rect>\n", tooltip);
}

void SvgPage::Line(std::string_view css_class, double x1, double y1, double x2, double y2) {
  body_ +=
      fmt::format("<line class=\"{}\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>\n",
                  css_class, x1, x2, y1, y2);
}

double SvgPage::Table(const Rows& rows, double x, double y) {
  if (rows.empty()) return y;
  const std::vector<double> widths = ColumnWidths(rows);
  for (size_t i = 0; i < rows.size(); ++i) {
    y += kTableRow;
    double left = x;
    for (size_t column = 0; column < rows[i].size(); ++column) {
      const std::string css_class =
          fmt::format("{}{}", i == 0 ? "s" : "d", column == 0 ? "" : " r");
      Text(css_class, column == 0 ? left : left + widths[column], y, SvgEscaped(rows[i][column]));
      left += widths[column];
    }
  }
  return y + kTableRow / 2;
}

double SvgPage::TableWidth(const Rows& rows) {
  const std::vector<double> widths = ColumnWidths(rows);
  return std::accumulate(widths.begin(), widths.end(), 0.0);
}

std::string SvgPage::Finished(double width, double height, std::string_view style) const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\">\n<style>{2}{3}</style>\n{4}"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{5}</svg>\n",
      width, height, kStyle, style, kIdlePattern, body_);
}

}  // namespace troupe
