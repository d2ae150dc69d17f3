// Where the ticks of a chart's axis stand. Called by svg_chart.cc. Pure.
#pragma once

#include <vector>

namespace troupe {

// Ticks of an axis from `low` to `high`, about `wanted` of them, all within the range. Linear steps
// are 1, 2 or 5 times a power of ten, or with base 1024 (bytes) a power of two; logarithmic ticks
// are 1, 2 and 5 times powers of ten, and where fewer than three of those fit, linear ones.
std::vector<double> LinearTicks(double low, double high, int wanted, int base = 10);
std::vector<double> LogTicks(double low, double high, int wanted);

}  // namespace troupe
