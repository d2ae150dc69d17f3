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

  // Where the microbatch's tokens are kept for the backward: Pass::tokens.
  TensorView Tokens(std::byte* stash) const { return inputs_.In(stash); }

  // x (T, h), overwritten.
  Task<Status> Forward(const Pass& pass, TensorView x) const;
  // dy (T, h): of x.
  Task<Status> BackwardWeight(const Pass& pass, ConstTensorView dy) const;

 private:
  UnitWeights* weights_;
  GradientSum* gradients_;
  int accumulator_;
  int64_t vocab_, hidden_;
  TensorSlot inputs_;
};

}  // namespace troupe
