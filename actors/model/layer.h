// Layer: what a stage knows of the units between embedding and head. A kind of layer is one spec
// (actors/plan/layer_spec.h) and one piece of this folder that implements it: closed, knowing no
// other unit.
//
// Forward, BackwardInput and BackwardWeight are tasks of the compute stream: they run straight
// through, but may await an operation of pass.groups. The pass outlives them.
//
// Thread: the compute stream's.
//   Y1. Forward begins with the normed stream (Input), and its last addition is left to the stage
//       (Output): the residual steps stand between units (residual.h).
//   Y2. Layers of a stage share the workspace of a pass: what Output names is read before the next
//       layer's Forward.
//   Y3. dy and dx are (T, h), the stage's to place: dy stays as it is from BackwardInput to the
//       last BackwardWeight. One-dimensional parameters take their gradients in BackwardInput.
//   Y4. While a task waits, others of the stage run, with workspaces of their own: a layer keeps
//       nothing of a pass in itself.
#pragma once

#include <memory>

#include "actors/model/residual.h"
#include "actors/model/unit_site.h"
#include "runtime/actor/task.h"

namespace troupe {

// Parts [first, end) of a layer's weight gradients.
struct WeightParts {
  int first = 0;
  int end = 0;
};

class Layer {
 public:
  virtual ~Layer() = default;

  // The kConstant tensors of its spec, in Pass::shared. Once, by one layer of each kind.
  virtual void WriteConstants(std::byte* /*shared*/) const {}

  virtual ResidualStart Input(const Pass& pass) const = 0;
  virtual Task<Status> Forward(const Pass& pass) const = 0;
  virtual ResidualEnd Output(const Pass& pass) const = 0;

  // From dy of the layer's output to dx of its input, overwritten.
  virtual Task<Status> BackwardInput(const Pass& pass, ConstTensorView dy, TensorView dx) const = 0;
  // Some of num_weight_parts, whole products each, in ascending order.
  virtual int num_weight_parts() const = 0;
  virtual Task<Status> BackwardWeight(const Pass& pass, WeightParts parts,
                                      ConstTensorView dy) const = 0;
};

using LayerFactory = std::unique_ptr<Layer> (*)(const UnitSite& site);
// By the spec's kind.
std::unique_ptr<Layer> NewLayer(const UnitSite& site);

}  // namespace troupe
