// Linear: one product of a unit (LayerProduct) with its two gradients: its weight, as the unit's
// weights have it, and where its gradient is summed.
//
// Thread: the compute stream's.
#pragma once

#include "actors/model/unit_site.h"
#include "kernels/matmul.h"

namespace troupe {

class Linear {
 public:
  Linear(const UnitSite& site, const LayerProduct& product);

  // x (rows, in), y (rows, out), at most shape().tokens rows; overwritten.
  void Forward(const Pass& pass, TensorView y, ConstTensorView x) const;
  void InputGrad(const Pass& pass, TensorView dx, ConstTensorView dy) const;
  // Adds to the microbatch's gradient.
  void WeightGrad(const Pass& pass, ConstTensorView dy, ConstTensorView x) const;

  const MatmulShape& shape() const { return shape_; }

 private:
  UnitWeights* weights_;
  Gradients* gradients_;
  MatmulShape shape_;
  int product_;  // of the unit's weights
  int accumulator_;
};

}  // namespace troupe
