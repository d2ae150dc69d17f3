// Casts and sums. Views of one call have the same shape; rows may be strided.
#pragma once

#include "kernels/exec.h"

namespace troupe {

// out = in, converted (float32, bfloat16, float64 in any pairing; bfloat16 rounds to nearest even).
void Cast(const Exec& exec, TensorView out, ConstTensorView in);

// out = a + b. out may be a or b.
void Add(const Exec& exec, TensorView out, ConstTensorView a, ConstTensorView b);

// sum += in; `sum` is float32 (float64), `in` of any dtype: gradient groups, tied weights.
void Accumulate(const Exec& exec, TensorView sum, ConstTensorView in);

void FillZero(const Exec& exec, TensorView x);

}  // namespace troupe
