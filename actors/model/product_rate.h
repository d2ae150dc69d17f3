// What a device multiplies in a second: the measure of what a run makes of it (MFU). Called by a
// rank before it says Hello.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/matmul.h"
#include "runtime/base/clock.h"

namespace troupe {

// No dimension of the product that is timed is larger.
inline constexpr int64_t kRateDimensionMax = 512;

// Floating-point operations a second (multiply and add count as two) of the shape's forward
// product, its dimensions cut to kRateDimensionMax: the best of five runs of packed weights, after
// one that warms up. Blocks the thread for as long as those six take: about a tenth of a second
// with AVX2 on one core.
double MeasureProductRate(const MatmulShape& shape, int num_threads, const Clock& clock);

// What it multiplies: float32 or bfloat16 of both signs in [1, 2). Zeros cost multipliers less
// power, so a device would seem faster than any training finds it.
void FillOperand(DType dtype, std::span<std::byte> operand);

}  // namespace troupe
