// The page that a schedule's picture is drawn on: text, rectangles, lines and a table, with the
// style of each class. Pixels; y grows downwards. Values: one thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace troupe {

// As text content, never an attribute: quotes stay.
std::string SvgEscaped(std::string_view text);

// 1, 2 or 5 times a power of ten, so that about `wanted` steps cover `length`.
double NiceStep(double length, int wanted);

class SvgPage {
 public:
  using Rows = std::vector<std::vector<std::string>>;

  void Text(std::string_view css_class, double x, double y, std::string_view safe_text);
  // rounding: corner radius; the tooltip, where there is one, is safe text.
  void Rect(std::string_view css_class, double x, double y, double width, double height,
            double rounding = 0, std::string_view tooltip = {});
  void Line(std::string_view css_class, double x1, double y1, double x2, double y2);
  void Add(std::string_view elements) { body_ += elements; }

  // The first row is the head, the first column to the left and the others to the right. Returns
  // where it ends.
  double Table(const Rows& rows, double x, double y);
  static double TableWidth(const Rows& rows);

  // The whole file; `style` is added to the page's own.
  std::string Finished(double width, double height, std::string_view style) const;

 private:
  std::string body_;
};

}  // namespace troupe
