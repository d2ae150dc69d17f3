// The residual stream between units: what one leaves and what the next begins with. A block's last
// addition and the next unit's norm run as one pass over the stream, yet neither unit knows the
// other.
#pragma once

#include "kernels/exec.h"
#include "kernels/tensor_view.h"

namespace troupe {

// The stream after a block is x + delta.
struct ResidualEnd {
  ConstTensorView x;      // (T, h)
  ConstTensorView delta;  // (T, h) what the block adds
};

// Where a unit wants the stream, and normed: y = norm(x).
struct ResidualStart {
  TensorView x;            // (T, h)
  TensorView y;            // (T, h)
  TensorView rstd;         // (T)
  ConstTensorView weight;  // (h)
  double eps = 0;
};

// x is there already: from the embedding or from another stage.
void EnterResidual(const Exec& exec, const ResidualStart& start);
// From one unit into the next.
void PassResidual(const Exec& exec, const ResidualEnd& end, const ResidualStart& start);
// Out of the stage: `output` (T, h).
void LeaveResidual(const Exec& exec, const ResidualEnd& end, TensorView output);

}  // namespace troupe
