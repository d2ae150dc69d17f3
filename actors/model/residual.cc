#include "actors/model/residual.h"

#include "kernels/elementwise.h"
#include "kernels/rms_norm.h"

namespace troupe {

void EnterResidual(const Exec& exec, const ResidualStart& start) {
  RmsNormForward(exec, start.y, start.rstd, start.x, start.weight, start.eps);
}

void PassResidual(const Exec& exec, const ResidualEnd& end, const ResidualStart& start) {
  AddRmsNormForward(exec, {.y = start.y,
                           .rstd = start.rstd,
                           .sum = start.x,
                           .x = end.x,
                           .delta = end.delta,
                           .weight = start.weight,
                           .eps = start.eps});
}

void LeaveResidual(const Exec& exec, const ResidualEnd& end, TensorView output) {
  Add(exec, output, end.x, end.delta);
}

}  // namespace troupe
