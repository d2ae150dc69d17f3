// Layer: what a stage knows of the units between embedding and head. A kind of layer is one spec
// (actors/plan/layer_spec.h) and one piece of this folder that implements it: closed, knowing no
// other unit.
//
// Thread: the compute stream's.
//   Y1. Forward begins with the normed stream (Input), and its last addition is left to the stage
//       (Output): the residual steps stand between units (residual.h).
//   Y2. Layers of a stage share the workspace: what Output names is read before the next layer's
//       Forward.
//   Y3. dy and dx are (T, h), the stage's to place: dy stays as it is from BackwardInput to the
//   last
//       BackwardWeight. One-dimensional parameters take their gradients in BackwardInput.
#pragma once

#include <memory>

#include "actors/model/residual.h"
#include "actors/model/unit_site.h"

namespace troupe {

class Layer {
 public:
  virtual ~Layer() = default;

  // Copies its weights into the layouts that the products read fastest; after every change of them.
  virtual void Pack(const Exec& exec) = 0;
  // The kConstant tensors of its spec, but for positions. Once, by one layer of each kind.
  virtual void WriteConstants(std::byte* /*workspace*/) const {}

  virtual ResidualStart Input(const Pass& pass) const = 0;
  virtual void Forward(const Pass& pass) const = 0;
  virtual ResidualEnd Output(const Pass& pass) const = 0;

  // From dy of the layer's output to dx of its input, overwritten.
  virtual void BackwardInput(const Pass& pass, ConstTensorView dy, TensorView dx) const = 0;
  // Part `part` of num_weight_parts, whole products each.
  virtual int num_weight_parts() const = 0;
  virtual void BackwardWeight(const Pass& pass, int part, ConstTensorView dy) const = 0;
};

using LayerFactory = std::unique_ptr<Layer> (*)(const UnitSite& site);
// By the spec's kind.
std::unique_ptr<Layer> NewLayer(const UnitSite& site);

}  // namespace troupe
