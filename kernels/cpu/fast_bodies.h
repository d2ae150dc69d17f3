// The fast CPU bodies of ops whose public function lies in <op>_cpu.cc. Arguments as in the op's
// header, checked there; float32 and bfloat16 only.
#pragma once

#include "kernels/attention.h"
#include "kernels/matmul.h"

namespace troupe {

// The products return false where no fast body exists for the shapes and strides.
bool MatmulForwardFast(const Exec& exec, TensorView y, ConstTensorView x,
                       const PackedWeight& weight, bool accumulate);
bool MatmulInputGradFast(const Exec& exec, TensorView dx, ConstTensorView dy,
                         const PackedWeight& weight, bool accumulate);
bool MatmulWeightGradFast(const Exec& exec, TensorView dw, ConstTensorView dy, ConstTensorView x,
                          bool accumulate);

// Attention's return false where the specification must serve.
bool AttentionForwardFast(const Exec& exec, const AttentionShape& shape,
                          const AttentionForwardArgs& args);
bool AttendBlockFast(const Exec& exec, const AttentionShape& shape,
                     const AttentionAccumulators& accumulators, const AttentionBlock& block);
bool FinishAttentionFast(const Exec& exec, int64_t num_sequences,
                         const AttentionAccumulators& accumulators, TensorView out, TensorView lse);
bool AttentionBackwardFast(const Exec& exec, const AttentionShape& shape,
                           const AttentionBackwardArgs& args);
// The workspace that they take; 0 where there are none.
int64_t AttentionFastBytes(const AttentionShape& shape, int num_threads,
                           const CpuCapabilities& cpu);

}  // namespace troupe
