// Head: the last unit: final norm, logits and loss. Its spec: HeadSpec (actors/plan/layer_spec.h).
// The gradients of its product are taken in Forward, while a chunk's logits exist, and the norm's
// weight is kept: the backward reads none of the unit's weights, so that where they are gathered it
// gathers nothing.
//
// Thread: the compute stream's.
#pragma once

#include "actors/model/linear.h"
#include "actors/model/residual.h"
#include "kernels/cross_entropy.h"
#include "runtime/actor/task.h"

namespace troupe {

class Head {
 public:
  explicit Head(const UnitSite& site);

  ResidualStart Input(const Pass& pass) const;
  // The loss, summed over the labels; with gradients also the product's two.
  Task<Result<LossSum>> Forward(const Pass& pass, bool with_gradients) const;
  // (1, V) master dtype: what follows token `token` of the microbatch. Valid until the pass ends.
  Task<Result<TensorView>> Logits(const Pass& pass, int64_t token) const;
  // dx (T, h), overwritten: through the final norm, whose weight's gradient it sums.
  Task<Status> BackwardInput(const Pass& pass, TensorView dx) const;

 private:
  // Of `count` tokens, at the beginning of the workspace's place.
  TensorView LogitsOf(const Pass& pass, int64_t count) const {
    return logits_.In(pass.workspace).Rows(0, count);
  }

  VectorWeight norm_;
  Linear logits_product_;
  double eps_;
  int64_t num_tokens_;  // T
  bool narrow_;         // gradients of logits are narrower than logits
  TensorSlot x_, n_, rstd_, weight_, dn_;
  TensorSlot logits_, dlogits_;
};

}  // namespace troupe
