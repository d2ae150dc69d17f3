// Token embedding. T tokens, V vocabulary, C channels.
#pragma once

#include "kernels/exec.h"

namespace troupe {

// out (T, C) = table (V, C)[tokens (T) int32]; out and table share a dtype. A token outside [0, V)
// is a broken precondition: the data loader has checked it.
void EmbeddingForward(const Exec& exec, TensorView out, ConstTensorView tokens,
                      ConstTensorView table);

// dtable (V, C) += dout (T, C) scattered by token, in ascending token position, so that the sum has
// one order. dtable is float32 (float64 for a float64 dout) and accumulates.
void EmbeddingBackward(const Exec& exec, TensorView dtable, ConstTensorView tokens,
                       ConstTensorView dout);

}  // namespace troupe
