// UlyssesAttention: ranks exchange heads for positions (Jacobs et al. 2023), so that each attends
// to whole sequences with its share of the heads, and its result goes back the same way. Where
// there are more ranks than heads of keys and values, several ranks get the same one, and its
// gradients are added up where they come home.
//
// It keeps queries, keys and values of its heads (qkv_heads); the outputs of its heads it sends for
// again.
#pragma once

#include <optional>

#include "actors/model/attention_masks.h"
#include "actors/model/head_exchange.h"
#include "actors/model/sequence_attention.h"

namespace troupe {

class UlyssesAttention final : public SequenceAttention {
 public:
  explicit UlyssesAttention(const UnitSite& site);

  Task<Status> Forward(const Pass& pass, KvPhase phase, ConstTensorView qkv,
                       TensorView out) const override;
  Task<Status> Backward(const Pass& pass, AttentionGradients gradients) const override;

 private:
  // The documents of whole sequences come with each pass; nothing where sequences pack none.
  Task<Status> GatherDocumentStarts(const Pass& pass, GroupPurpose purpose) const;
  MaskedAttention Masked(const Pass& pass) const;

  LayerAttention heads_;  // this rank's
  int64_t num_sequences_;
  AttentionMasks masks_;
  HeadExchange qkv_exchange_, out_exchange_;
  HalfSlot qkv_heads_, lse_;
  TensorSlot dqkv_heads_, out_heads_, dout_heads_;
  std::optional<TensorSlot> document_starts_;
};

}  // namespace troupe
