// LocalAttention: this rank has whole sequences, and all heads.
#pragma once

#include "actors/model/attention_masks.h"
#include "actors/model/sequence_attention.h"

namespace troupe {

class LocalAttention final : public SequenceAttention {
 public:
  explicit LocalAttention(const UnitSite& site);

  Task<Status> Forward(const Pass& pass, KvPhase phase, ConstTensorView qkv,
                       TensorView out) const override;
  Task<Status> Backward(const Pass& pass, AttentionGradients gradients) const override;

 private:
  TensorView Lse(const Pass& pass) const { return RowStatistics(lse_.In(pass), masks_.shape()); }

  LayerAttention heads_;
  AttentionMasks masks_;
  HalfSlot lse_;
};

}  // namespace troupe
