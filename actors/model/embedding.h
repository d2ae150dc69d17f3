// Embedding: the first unit, from tokens to the residual stream. Its spec: EmbeddingSpec
// (actors/plan/layer_spec.h).
//
// Thread: the compute stream's.
#pragma once

#include "actors/model/unit_site.h"
#include "runtime/actor/task.h"

namespace troupe {

class Embedding {
 public:
  explicit Embedding(const UnitSite& site);

  // x (T, h), overwritten.
  Task<Status> Forward(const Pass& pass, TensorView x) const;
  // dy (T, h): of x.
  Task<Status> BackwardWeight(const Pass& pass, ConstTensorView dy) const;

 private:
  UnitWeights* weights_;
  Gradients* gradients_;
  int accumulator_;
  int64_t vocab_, hidden_;
};

}  // namespace troupe
