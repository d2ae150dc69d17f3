// Casts and sums. Views of one call have the same shape; rows may be strided.
#pragma once

#include "kernels/exec.h"

namespace troupe {

// out = in, converted (float32, bfloat16, float64 in any pairing; bfloat16 rounds to nearest even).
// On one thread a narrower `out` may begin where `in` does.
void Cast(const Exec& exec, TensorView out, ConstTensorView in);

// out = a + b. out may be a or b.
void Add(const Exec& exec, TensorView out, ConstTensorView a, ConstTensorView b);

// sum += in, of any dtypes: gradient groups, tied weights. A bfloat16 sum adds in float32 and
// rounds once to nearest even.
void Accumulate(const Exec& exec, TensorView sum, ConstTensorView in);

void FillZero(const Exec& exec, TensorView x);

}  // namespace troupe
