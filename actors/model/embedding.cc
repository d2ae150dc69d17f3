#include "actors/model/embedding.h"

#include "kernels/embedding.h"

namespace troupe {

Embedding::Embedding(const UnitSite& site)
    : weights_(&site.weights),
      gradients_(&site.gradients),
      accumulator_(site.NewAccumulator(0)),
      vocab_(site.spec.parameters.front().rows),
      hidden_(site.spec.parameters.front().columns) {}

Task<Status> Embedding::Forward(const Pass& pass, TensorView x) const {
  EmbeddingForward(pass.exec, x, pass.tokens, weights_->Compute(0));
  co_return Status{};
}

Task<Status> Embedding::BackwardWeight(const Pass& pass, ConstTensorView dy) const {
  const TensorView sum = gradients_->Target(pass.exec, accumulator_, pass.microbatch);
  EmbeddingBackward(pass.exec, TensorView(sum.data(), sum.dtype(), {vocab_, hidden_}), pass.tokens,
                    dy);
  co_return Status{};
}

}  // namespace troupe
