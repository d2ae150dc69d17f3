// Root-mean-square normalisation (Zhang & Sennrich 2019). T tokens, C channels.
//   rstd[t] = 1 / sqrt(mean_c x[t,c]^2 + eps)         y[t,c] = x[t,c] * rstd[t] * weight[c]
// Statistics are float32 (float64 on float64 views) whatever the dtype of x.
#pragma once

#include "kernels/exec.h"

namespace troupe {

// Overwrites y (T, C) and rstd (T).
void RmsNormForward(const Exec& exec, TensorView y, TensorView rstd, ConstTensorView x,
                    ConstTensorView weight, double eps);

struct AddRmsNormArgs {
  TensorView y;            // (T, C)
  TensorView rstd;         // (T)
  TensorView sum;          // (T, C) = x + delta; may be x or delta itself
  ConstTensorView x;       // (T, C) residual stream
  ConstTensorView delta;   // (T, C) what the block adds to it
  ConstTensorView weight;  // (C)
  double eps = 1e-5;
};
// sum = x + delta; y = norm(sum), in one pass. The norm reads the sum as rounded to its dtype.
void AddRmsNormForward(const Exec& exec, const AddRmsNormArgs& args);

struct RmsNormBackwardArgs {
  TensorView dx;             // (T, C) overwritten; may be dy; empty: skip the input half
  TensorView dweight;        // (C) float32, += in token order; empty: skip the weight half
  ConstTensorView dy;        // (T, C)
  ConstTensorView x;         // (T, C) as in forward
  ConstTensorView rstd;      // (T)
  ConstTensorView weight;    // (C)
  ConstTensorView residual;  // (T, C) added to dx: the residual stream's own gradient; may be dx
                             // itself, or empty
};
// With xhat = x * rstd:  dx = rstd * (w*dy - xhat * mean_c(w*dy*xhat)) + residual
//                        dweight += sum_t dy * xhat
void RmsNormBackward(const Exec& exec, const RmsNormBackwardArgs& args);

}  // namespace troupe
