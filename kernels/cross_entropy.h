// Softmax cross-entropy over one chunk of tokens; the caller walks the chunks in ascending order
// with the head's product outside, so that logits of a whole microbatch never exist. T tokens of
// the chunk, V vocabulary.
#pragma once

#include "kernels/exec.h"

namespace troupe {

inline constexpr int32_t kIgnoredLabel = -1;

// Running sums of a microbatch. Tokens are added one by one in ascending order, so the sum does not
// depend on the chunking.
struct LossSum {
  double nll = 0.0;  // sum of -log p(label), nats
  int64_t num_tokens = 0;
};

// Adds the chunk's loss to `sum`; writes dlogits (T, V) = softmax(logits) - onehot(label), the
// gradient of the summed loss, zero where the label is ignored. logits (T, V) float32, bfloat16 or
// float64; dlogits may be logits itself, of another dtype (bfloat16 from float32), or empty (no
// gradient: evaluation). labels (T) int32 in [0, V) or kIgnoredLabel.
void CrossEntropy(const Exec& exec, TensorView dlogits, ConstTensorView logits,
                  ConstTensorView labels, LossSum& sum);

}  // namespace troupe
