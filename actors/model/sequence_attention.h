// SequenceAttention: the attention of a layer over whole sequences, of which this rank may have a
// part (ContextParallel). One piece for each way in which queries meet the keys of other ranks:
// closed, none knowing another.
//
//   local_attention.h        this rank has whole sequences
//   ring_attention.h         blocks of keys and values go round (Liu et al. 2023)
//   all_gather_attention.h   all of them come together first (Llama 3, Dubey et al. 2024, 3.3.2)
//   ulysses_attention.h      heads are exchanged for positions (Jacobs et al. 2023)
//
// T tokens of the microbatch on this rank, q query and k key channels. Queries and keys are rotated
// already, by their positions in the sequence.
//
// Thread: the compute stream's; the pass outlives the tasks. As layers (layer.h Y4), a piece keeps
// nothing of a pass in itself.
#pragma once

#include <memory>

#include "actors/model/group_elements.h"
#include "actors/model/unit_site.h"
#include "runtime/actor/task.h"
#include "runtime/collective/group.h"

namespace troupe {

// What a backward reads and writes.
struct AttentionGradients {
  ConstTensorView qkv;   // (T, q + 2k) as in Forward
  ConstTensorView out;   // (T, q)
  ConstTensorView dout;  // (T, q)
  TensorView dqkv;       // (T, q + 2k) overwritten
};

class SequenceAttention {
 public:
  virtual ~SequenceAttention() = default;

  // The kConstant tensors that it adds to the layer's (unit_tensors.h).
  virtual void WriteConstants(std::byte* /*shared*/) const {}

  // qkv (T, q + 2k); out (T, q) overwritten. Keeps what Backward reads beside them. `phase` is
  // kForward or kRecompute.
  virtual Task<Status> Forward(const Pass& pass, KvPhase phase, ConstTensorView qkv,
                               TensorView out) const = 0;
  virtual Task<Status> Backward(const Pass& pass, AttentionGradients gradients) const = 0;
};

// By the batch's context.
std::unique_ptr<SequenceAttention> NewSequenceAttention(const UnitSite& site);

// ---- what the pieces have in common -----------------------------------------------------------

// Query, key and value heads of rows (T, q + 2k): (T, heads, D) each.
template <typename View>
struct QkvHeads {
  View q, k, v;
};
template <typename View>
View HeadsAt(const View& rows, int64_t first_column, int64_t num_heads, int64_t head_dim) {
  return rows.Columns(first_column, num_heads * head_dim).SplitRows({num_heads, head_dim});
}
template <typename View>
QkvHeads<View> HeadsOf(const LayerAttention& a, const View& rows) {
  const int64_t q = a.num_heads * a.head_dim, k = a.num_kv_heads * a.head_dim;
  return {.q = HeadsAt(rows, 0, a.num_heads, a.head_dim),
          .k = HeadsAt(rows, q, a.num_kv_heads, a.head_dim),
          .v = HeadsAt(rows, q + k, a.num_kv_heads, a.head_dim)};
}
// (T, heads · D) as (T, heads, D).
template <typename View>
View ByHead(const LayerAttention& a, const View& rows) {
  return rows.SplitRows({a.num_heads, a.head_dim});
}

// Of a slot of (T, heads) or as many numbers: (sequences, heads, tokens), as the kernels have
// statistics of rows.
TensorView RowStatistics(const TensorView& numbers, const AttentionShape& shape);

// Where the pass trains, adds visible (query, key) pairs to the counts.
void CountPairs(const Pass& pass, KvPhase phase, int hop, int64_t pairs);

// For an operation of a group.
GroupPurpose AttentionPurpose(const Pass& pass, KvPhase phase);

}  // namespace troupe
