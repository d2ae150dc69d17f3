#include "actors/model/embedding.h"

#include "kernels/embedding.h"

namespace troupe {

Embedding::Embedding(const UnitSite& site)
    : weights_(&site.weights),
      gradients_(&site.gradients),
      table_index_(site.table_indices.front()),
      accumulator_(site.NewAccumulator(0)),
      inputs_(site.Stash("inputs")) {}

void Embedding::Forward(const Pass& pass, TensorView x) const {
  EmbeddingForward(pass.exec, x, pass.tokens, weights_->Compute(table_index_));
}

void Embedding::BackwardWeight(const Pass& pass, ConstTensorView dy) const {
  const ConstTensorView weight = weights_->Compute(table_index_);
  const TensorView sum = gradients_->Target(pass.exec, accumulator_, pass.microbatch);
  EmbeddingBackward(pass.exec,
                    TensorView(sum.data(), sum.dtype(), {weight.rows(), weight.row_elements()}),
                    pass.tokens, dy);
}

}  // namespace troupe
