#include "actors/model/linear.h"

#include "runtime/base/check.h"

namespace troupe {

Linear::Linear(const UnitSite& site, const LayerProduct& product)
    : weights_(&site.weights),
      gradients_(&site.gradients),
      shape_{RowsOf(product, site.batch.tokens_per_microbatch()), product.in, product.out,
             site.dtype},
      product_(site.weights.AddProduct(shape_, product.first_parameter, product.num_parameters)),
      accumulator_(site.NewAccumulator(product.first_parameter, product.num_parameters)) {
  int64_t rows = 0;
  for (int i = 0; i < product.num_parameters; ++i) {
    const auto& parameter = site.spec.parameters[static_cast<size_t>(product.first_parameter + i)];
    CHECK(parameter.columns == shape_.in, "{} has no {} columns", parameter.name, shape_.in);
    rows += parameter.rows;
  }
  CHECK(rows == shape_.out, "the parameters of {} are another matrix", product.name);
}

void Linear::Forward(const Pass& pass, TensorView y, ConstTensorView x) const {
  MatmulForward(pass.exec, y, x, weights_->Packed(pass.exec, product_, WeightUse::kForward));
}

void Linear::InputGrad(const Pass& pass, TensorView dx, ConstTensorView dy) const {
  MatmulInputGrad(pass.exec, dx, dy, weights_->Packed(pass.exec, product_, WeightUse::kInputGrad));
}

void Linear::WeightGrad(const Pass& pass, ConstTensorView dy, ConstTensorView x) const {
  const TensorView sum = gradients_->Target(pass.exec, accumulator_, pass.microbatch);
  MatmulWeightGrad(pass.exec, TensorView(sum.data(), sum.dtype(), {shape_.out, shape_.in}), dy, x,
                   /*accumulate=*/true);
}

}  // namespace troupe
