#include "runtime/format/chart_ticks.h"

#include <algorithm>
#include <cmath>

namespace troupe {

std::vector<double> LinearTicks(double low, double high, int wanted, int base) {
  if (!(high > low) || wanted < 1) {
    return {};
  }
  const double raw = (high - low) / wanted;
  double step = 0;
  if (base == 1024) {
    step = std::max(1.0, std::exp2(std::ceil(std::log2(raw) - 1e-9)));
  } else {
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    for (const double factor : {10.0, 5.0, 2.0, 1.0}) {
      step = factor * power >= raw * (1 - 1e-9) ? factor * power : step;
    }
  }
  std::vector<double> ticks;
  // A hair of tolerance keeps an end that rounding pushed outside; −0 would print a sign.
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) {
    ticks.push_back(i == 0 ? 0.0 : i * step);
  }
  return ticks;
}

std::vector<double> LogTicks(double low, double high, int wanted) {
  if (!(low > 0) || !(high > low)) {
    return {};
  }
  std::vector<double> ticks;
  const auto first = static_cast<int>(std::floor(std::log10(low)));
  const auto last = static_cast<int>(std::ceil(std::log10(high)));
  for (int power = first; power <= last; ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10.0, power);
      if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) {
        ticks.push_back(tick);
      }
    }
  }
  // Over many decades whole powers of ten are enough; within less than one, a linear step is finer.
  if (last - first > wanted) {
    std::erase_if(ticks, [](double tick) {
      const double power = std::log10(tick);
      return std::abs(power - std::round(power)) > 1e-9;
    });
  }
  return ticks.size() < 3 ? LinearTicks(low, high, wanted) : ticks;
}

}  // namespace troupe
