#include "actors/model/linear.h"

#include "runtime/base/check.h"

namespace troupe {

Linear::Linear(const UnitSite& site, const LayerProduct& product)
    : weights_(&site.weights),
      gradients_(&site.gradients),
      ledger_(&site.ledger),
      shape_{RowsOf(product, site.batch.tokens_per_microbatch()), product.in, product.out,
             site.dtype},
      table_index_(site.table_indices[static_cast<size_t>(product.first_parameter)]),
      num_parameters_(product.num_parameters),
      accumulator_(site.NewAccumulator(product.first_parameter, product.num_parameters)) {
  const ConstTensorView weight = weights_->Compute(table_index_, num_parameters_);
  CHECK(weight.rows() == shape_.out && weight.row_elements() == shape_.in,
        "the parameters of {} are another matrix", product.name);
}

void Linear::Pack(const Exec& exec) {
  const ConstTensorView weight = weights_->Compute(table_index_, num_parameters_);
  PackFor(exec, WeightUse::kForward, weight, forward_);
  PackFor(exec, WeightUse::kInputGrad, weight, input_grad_);
}

void Linear::PackFor(const Exec& exec, WeightUse use, ConstTensorView weight, Copy& copy) {
  const int64_t num_bytes = PackedWeightBytes(shape_, use);
  if (num_bytes == 0 || exec.specification) {
    copy.packed = weight;
    copy.packed.use = use;
    return;
  }
  if (copy.memory.empty()) copy.memory = Buffer(*ledger_, MemoryTag::kWorkspace, num_bytes);
  copy.packed = PackWeight(exec, shape_, use, weight, copy.memory.bytes());
}

void Linear::Forward(const Pass& pass, TensorView y, ConstTensorView x) const {
  MatmulForward(pass.exec, y, x, forward_.packed);
}

void Linear::InputGrad(const Pass& pass, TensorView dx, ConstTensorView dy) const {
  MatmulInputGrad(pass.exec, dx, dy, input_grad_.packed);
}

void Linear::WeightGrad(const Pass& pass, ConstTensorView dy, ConstTensorView x) const {
  const TensorView sum = gradients_->Target(pass.exec, accumulator_, pass.microbatch);
  MatmulWeightGrad(pass.exec, TensorView(sum.data(), sum.dtype(), {shape_.out, shape_.in}), dy, x,
                   /*accumulate=*/true);
}

}  // namespace troupe
