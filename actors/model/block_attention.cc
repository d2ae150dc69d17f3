#include "actors/model/block_attention.h"

#include <algorithm>

#include "actors/model/block_span.h"
#include "actors/plan/sequence_layout.h"
#include "kernels/elementwise.h"

namespace troupe {

BlockAttention::BlockAttention(const UnitSite& site)
    : heads_(*site.spec.attention),
      context_(site.batch.context),
      masks_(site),
      layer_(site.layer),
      seq_len_(site.batch.seq_len),
      tokens_(site.batch.tokens_per_microbatch()),
      query_columns_(heads_.num_heads * heads_.head_dim),
      key_columns_(heads_.num_kv_heads * heads_.head_dim),
      dtype_(site.dtype),
      master_(site.master),
      lse_(site.Half("lse")),
      acc_(site.Workspace("attention_acc")),
      max_(site.Workspace("attention_max")),
      sum_(site.Workspace("attention_sum")),
      positions_(site.Constant("block_positions")) {}

void BlockAttention::WriteConstants(std::byte* shared) const {
  int32_t* next = positions_.In(shared).as<int32_t>();
  for (int index = 0; index < context_.num_ranks; ++index) {
    next = std::ranges::copy(PositionsOf(context_, index, seq_len_), next).out;
  }
}

std::span<const int32_t> BlockAttention::Positions(const Pass& pass, int index) const {
  const int64_t count = seq_len_ / context_.num_ranks;
  const auto* all = positions_.In(pass.shared).as<int32_t>();
  return {all + index * count, static_cast<size_t>(count)};
}

MaskedAttention BlockAttention::Masked(const Pass& pass, int index, int hop,
                                       QueryWindow window) const {
  const int origin = OriginAfter(context_.num_ranks, index, hop);
  return masks_.OfBlock(pass, Positions(pass, index), Positions(pass, origin),
                        DocumentStartsOf(pass), window);
}

AttentionAccumulators BlockAttention::Accumulators(const Pass& pass) const {
  const AttentionShape& shape = masks_.shape();
  return {.acc = ByHead(heads_, acc_.In(pass.workspace)),
          .max = RowStatistics(max_.In(pass.workspace), shape),
          .sum = RowStatistics(sum_.In(pass.workspace), shape)};
}

void BlockAttention::Pack(const Pass& pass, ConstTensorView qkv, TensorView block) const {
  Cast(pass.exec, block, qkv.Columns(query_columns_, columns()));
}

// ---- forward --------------------------------------------------------------------------------

void BlockAttention::Begin(const Pass& pass) const {
  ResetAttention(pass.exec, Accumulators(pass));
}

void BlockAttention::Attend(const Pass& pass, KvPhase phase, int index, int hop,
                            ConstTensorView qkv, ConstTensorView block) const {
  const MaskedAttention masked = Masked(pass, index, hop, all_queries());
  CountPairs(pass, phase, hop, masked.num_pairs);
  if (masked.num_pairs == 0) return;
  const BlockSpan span(pass, phase, layer_, hop);
  AttendBlock(pass.exec, masked.shape, Accumulators(pass),
              {.q = HeadsOf(heads_, qkv).q, .k = KeysIn(block), .v = ValuesIn(block)});
}

void BlockAttention::Finish(const Pass& pass, TensorView out) const {
  const AttentionShape& shape = masks_.shape();
  FinishAttention(pass.exec, shape.num_sequences, Accumulators(pass), ByHead(heads_, out),
                  RowStatistics(lse_.In(pass), shape));
}

// ---- backward -------------------------------------------------------------------------------

void BlockAttention::BeginBackward(const Pass& pass) const {
  FillZero(pass.exec, acc_.In(pass.workspace));
}

bool BlockAttention::AttendBackward(const Pass& pass, int index, int hop, QueryWindow window,
                                    const AttentionGradients& g, ConstTensorView block,
                                    TensorView part) const {
  const MaskedAttention masked = Masked(pass, index, hop, window);
  CountPairs(pass, KvPhase::kBackward, hop, masked.num_pairs);
  if (masked.num_pairs == 0) return false;
  const BlockSpan span(pass, KvPhase::kBackward, layer_, hop);
  AttentionBackward(pass.exec, masked.shape,
                    {.dq = ByHead(heads_, acc_.In(pass.workspace)),
                     .dk = KeysIn(part),
                     .dv = ValuesIn(part),
                     .dout = ByHead(heads_, g.dout),
                     .q = HeadsOf(heads_, g.qkv).q,
                     .k = KeysIn(block),
                     .v = ValuesIn(block),
                     .out = ByHead(heads_, g.out),
                     .lse = RowStatistics(lse_.In(pass), masks_.shape()),
                     .accumulate_dq = true});
  return true;
}

void BlockAttention::FinishQueries(const Pass& pass, TensorView dqkv) const {
  Cast(pass.exec, dqkv.Columns(0, query_columns_), acc_.In(pass.workspace));
}

void BlockAttention::FinishKeys(const Pass& pass, ConstTensorView sum, TensorView dqkv) const {
  Cast(pass.exec, dqkv.Columns(query_columns_, columns()), sum);
}

}  // namespace troupe
