// The fast CPU bodies of ops whose public function lies in <op>_cpu.cc. Arguments as in the op's
// header, checked there; float32 and bfloat16 only.
#pragma once

#include "kernels/matmul.h"

namespace troupe {

// The products return false where no fast body exists for the shapes and strides.
bool MatmulForwardFast(const Exec& exec, TensorView y, ConstTensorView x,
                       const PackedWeight& weight, bool accumulate);
bool MatmulInputGradFast(const Exec& exec, TensorView dx, ConstTensorView dy,
                         const PackedWeight& weight, bool accumulate);
bool MatmulWeightGradFast(const Exec& exec, TensorView dw, ConstTensorView dy, ConstTensorView x,
                          bool accumulate);

}  // namespace troupe
