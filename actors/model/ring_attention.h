// RingAttention: blocks of keys and values go round the ranks that share the sequences, and are
// computed as they come (Liu et al. 2023); in the backward their gradients follow one step behind.
//
//   step h of N:  expect the block of hop h + 1 and send that of hop h on; compute the block of hop
//                 h meanwhile; wait for what was expected, and until what was sent has gone
//
// A block is forwarded from where it came. In the backward the gradient that came for the block of
// hop h gets this rank's part added, and goes on in the next step; with hop N it is home. This
// rank's own block is computed in two: some of its queries while the first block comes, the others
// while its gradient comes home.
#pragma once

#include "actors/model/block_attention.h"
#include "actors/model/sequence_attention.h"

namespace troupe {

class RingAttention final : public SequenceAttention {
 public:
  explicit RingAttention(const UnitSite& site);

  void WriteConstants(std::byte* shared) const override { blocks_.WriteConstants(shared); }
  Task<Status> Forward(const Pass& pass, KvPhase phase, ConstTensorView qkv,
                       TensorView out) const override;
  Task<Status> Backward(const Pass& pass, AttentionGradients gradients) const override;

 private:
  KvHop HopOf(const Pass& pass, KvKind kind, KvPhase phase) const;

  BlockAttention blocks_;
  int layer_;
  TensorSlot kv_own_, dkv_own_, dkv_part_;
};

}  // namespace troupe
