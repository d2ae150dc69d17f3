// SwiGLU (Shazeer 2020): out = silu(gate) * up, silu(z) = z / (1 + exp(-z)). T tokens, F channels.
#pragma once

#include "kernels/exec.h"

namespace troupe {

// out (T, F); gate and up (T, F), may be column blocks of one matrix. out may be gate or up.
void SwigluForward(const Exec& exec, TensorView out, ConstTensorView gate, ConstTensorView up);

struct SwigluBackwardArgs {
  TensorView dgate;  // (T, F) overwritten; may be gate or dout
  TensorView dup;    // (T, F) overwritten; may be up
  ConstTensorView dout;
  ConstTensorView gate;
  ConstTensorView up;
  TensorView out;  // empty, or (T, F): receives the forward result again, so that it need not be
                   // kept for the next product's weight gradient
};
// dup = dout * silu(gate);  dgate = dout * up * s * (1 + gate * (1 - s)), s = sigmoid(gate).
void SwigluBackward(const Exec& exec, const SwigluBackwardArgs& args);

}  // namespace troupe
