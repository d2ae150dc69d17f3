// What a device multiplies in a second: the measure of what a run makes of it (MFU). Called by a
// rank before it says Hello.
#pragma once

#include "kernels/matmul.h"
#include "runtime/base/clock.h"

namespace troupe {

// No dimension of the product that is timed is larger.
inline constexpr int64_t kRateDimensionMax = 512;

// Floating-point operations a second (multiply and add count as two) of the shape's forward
// product, its dimensions cut to kRateDimensionMax: the best of a few runs of packed weights, after
// one that warms up. Blocks the thread for some ten milliseconds.
double MeasureProductRate(const MatmulShape& shape, int num_threads, const Clock& clock);

}  // namespace troupe
