// AdamW (Loshchilov & Hutter 2019), elementwise, so that any sharding gives the same bits.
//   g = grad * grad_factor;  m += (1-b1)(g - m);  v = b2 v + (1-b2) g^2
//   p *= 1 - lr*wd;  p -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps)
#pragma once

#include "kernels/exec.h"

namespace troupe {

struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // 0 for parameters without decay
  double grad_factor = 1.0;   // clip / token count, from the commit
  int64_t step = 1;           // t, from 1
};

struct AdamWArgs {
  TensorView param;      // master weights, float32 (float64)
  TensorView m;          // first moment
  TensorView v;          // second moment
  ConstTensorView grad;  // summed gradient, bfloat16 too: widened first
  TensorView compute;    // empty, or bfloat16: receives RN(param)
};
// All views have the same elements in the same order, dense.
void AdamW(const Exec& exec, const AdamWOptions& options, const AdamWArgs& args);

}  // namespace troupe
