// The sum over the members of a group, in one order wherever it is taken:
//
//     out[i] = (…((inputs[0][i] + inputs[1][i]) + inputs[2][i]) + …)
//
// float32 and float64 add in their own type, int32 and int64 wrap; bfloat16 and float16 add in
// float32 and round each sum to nearest even. So in every dtype the bits are those of the same sum
// taken one input after the other.
#pragma once

#include <cstdint>

#include "kernels/tensor_view.h"

namespace troupe {

// IEEE half precision. Conversion from float rounds to nearest, ties to even; NaN stays NaN, and
// what is too large becomes infinity.
struct float16 {
  uint16_t bits = 0;

  float16() = default;
  explicit float16(float value);
  operator float() const;
};
static_assert(sizeof(float16) == 2 && std::is_trivially_copyable_v<float16>);

// `num_inputs` >= 1 arrays of `count` elements each. `out` is one of them, or overlaps none; none
// needs any alignment. On the calling thread; allocates nothing.
using OrderedSum = void (*)(void* out, const void* const* inputs, int num_inputs, int64_t count);

OrderedSum OrderedSumOf(DType dtype);

}  // namespace troupe
