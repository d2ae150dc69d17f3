// Linear: one product of a unit (LayerProduct) with its two gradients: the weight, its packed
// copies, and where its gradient is summed.
//
// Thread: the compute stream's.
#pragma once

#include "actors/model/unit_site.h"
#include "kernels/matmul.h"

namespace troupe {

class Linear {
 public:
  Linear(const UnitSite& site, const LayerProduct& product);

  // Copies the weight anew into the layouts that the products read fastest; with the kernels'
  // specification none are made. After every change of the weight, before any product.
  void Pack(const Exec& exec);

  // x (rows, in), y (rows, out), at most shape().tokens rows; overwritten.
  void Forward(const Pass& pass, TensorView y, ConstTensorView x) const;
  void InputGrad(const Pass& pass, TensorView dx, ConstTensorView dy) const;
  // Adds to the microbatch's gradient.
  void WeightGrad(const Pass& pass, ConstTensorView dy, ConstTensorView x) const;

  const MatmulShape& shape() const { return shape_; }

 private:
  struct Copy {
    PackedWeight packed{};
    Buffer memory{};  // empty where packing does not pay
  };
  void PackFor(const Exec& exec, WeightUse use, ConstTensorView weight, Copy& copy);

  StageParameters* weights_;
  GradientSum* gradients_;
  MemoryLedger* ledger_;
  MatmulShape shape_;
  int table_index_;
  int num_parameters_;
  int accumulator_;
  Copy forward_{};
  Copy input_grad_{};
};

}  // namespace troupe
