// AllGatherAttention: every rank gets the keys and values of all before its queries meet them
// (Llama 3, Dubey et al. 2024, 3.3.2), block by block as the ring has them; in the backward they
// are gathered again, and each rank gets the sum of its own's gradients (reduce-scatter in master).
#pragma once

#include "actors/model/block_attention.h"
#include "actors/model/sequence_attention.h"

namespace troupe {

class AllGatherAttention final : public SequenceAttention {
 public:
  explicit AllGatherAttention(const UnitSite& site);

  void WriteConstants(std::byte* shared) const override { blocks_.WriteConstants(shared); }
  Task<Status> Forward(const Pass& pass, KvPhase phase, ConstTensorView qkv,
                       TensorView out) const override;
  Task<Status> Backward(const Pass& pass, AttentionGradients gradients) const override;

 private:
  Task<Status> Gather(const Pass& pass, KvPhase phase, ConstTensorView qkv) const;
  // Of rank `index` among all.
  TensorView BlockOf(const TensorView& all, int index) const {
    return all.Rows(index * blocks_.tokens(), blocks_.tokens());
  }

  BlockAttention blocks_;
  TensorSlot kv_all_, dkv_all_;
};

}  // namespace troupe
