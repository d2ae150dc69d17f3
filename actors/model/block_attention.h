// BlockAttention: the queries of this rank against the keys and values of one rank after another,
// as ring and all-gather have it. Forward adds blocks into float32 accumulators that are normalised
// once, at the end; the backward uses the final output and log-sum-exp, so that each block stands
// for itself.
//
// A block is [K | V] of the tokens of a rank, (T, 2k) in the compute dtype; its gradient is
// [dK | dV] in master. Blocks are numbered by hop: at rank r of N block h is rank (r - h) mod N's.
//
// Thread: the compute stream's.
#pragma once

#include <span>

#include "actors/model/attention_masks.h"
#include "actors/model/sequence_attention.h"

namespace troupe {

class BlockAttention {
 public:
  explicit BlockAttention(const UnitSite& site);

  void WriteConstants(std::byte* shared) const;

  int num_ranks() const { return context_.num_ranks; }
  int64_t tokens() const { return tokens_; }            // T
  int64_t columns() const { return 2 * key_columns_; }  // 2k
  int64_t block_elements() const { return tokens_ * columns(); }
  DType dtype() const { return dtype_; }
  DType master() const { return master_; }

  void Pack(const Pass& pass, ConstTensorView qkv, TensorView block) const;

  // Begin, Attend of every block, Finish. Whose block it is: hop `hop` at rank `index`.
  void Begin(const Pass& pass) const;
  void Attend(const Pass& pass, KvPhase phase, int index, int hop, ConstTensorView qkv,
              ConstTensorView block) const;
  void Finish(const Pass& pass, TensorView out) const;

  // BeginBackward, AttendBackward of every block, FinishQueries and FinishKeys.
  void BeginBackward(const Pass& pass) const;
  // Overwrites `part` with the block's gradient from this rank's queries in the window; false, and
  // `part` as it was, where they see nothing of the block.
  bool AttendBackward(const Pass& pass, int index, int hop, QueryWindow window,
                      const AttentionGradients& gradients, ConstTensorView block,
                      TensorView part) const;
  QueryWindow all_queries() const { return {0, masks_.shape().query_len}; }
  // dq, and dk and dv from the sum over the ranks.
  void FinishQueries(const Pass& pass, TensorView dqkv) const;
  void FinishKeys(const Pass& pass, ConstTensorView sum, TensorView dqkv) const;

 private:
  // Those of rank `index`, in each sequence.
  std::span<const int32_t> Positions(const Pass& pass, int index) const;
  MaskedAttention Masked(const Pass& pass, int index, int hop, QueryWindow window) const;
  AttentionAccumulators Accumulators(const Pass& pass) const;
  template <typename View>
  View KeysIn(const View& block) const {
    return HeadsAt(block, 0, heads_.num_kv_heads, heads_.head_dim);
  }
  template <typename View>
  View ValuesIn(const View& block) const {
    return HeadsAt(block, key_columns_, heads_.num_kv_heads, heads_.head_dim);
  }

  LayerAttention heads_;
  ContextParallel context_;
  AttentionMasks masks_;
  int layer_;
  int64_t seq_len_;
  int64_t tokens_;
  int64_t query_columns_;  // q
  int64_t key_columns_;    // k
  DType dtype_, master_;
  HalfSlot lse_;
  TensorSlot acc_, max_, sum_, positions_;
};

}  // namespace troupe
