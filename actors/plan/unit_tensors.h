// Which tensors a unit has in a job: those of its spec, what its attention needs beside them where
// ranks share sequences (ContextParallel) or sequences pack documents, and how long each is kept
// where a backward computes some of them again (Recompute). Pure.
#pragma once

#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/layer_spec.h"

namespace troupe {

// Beside the spec's, of a layer with attention; letters as in layer_spec.h, of this rank's tokens:
//   ring        kv_own (T, 2k)        this rank's keys and values, packed for the next rank
//               dkv_own, dkv_part     (T, 2k) of a block, in master: this rank's own, another's
//   all-gather  kv_all, dkv_all       (N T, 2k) of every rank's tokens
//   both        attention_acc (T, q), attention_max, attention_sum (T, heads)
//                                     kernels/attention.h; in a backward the first is dq's sum
//               block_positions (S)   those of each rank, one behind the other
//   Ulysses     qkv_heads             (N T, w) whole sequences of this rank's heads, w wide, kept
//   in
//                                     place of qkv; dqkv_heads
//               out_heads, dout_heads (N T, q / N)
//               exchanged (T, N w)    to or from all ranks
//               all_document_starts (N T), with documents
//               dqkv_sum (T, q + 2k)  in master, where ranks have the same keys
//   first_key, end_key (T; Ulysses N T), where the mask is ranges
std::vector<LayerTensor> TensorsOf(const LayerSpec& unit, const BatchArithmetic& batch,
                                   Recompute recompute = Recompute::kNone);

// What one call of a rank's attention is over: heads, and tokens of a sequence on both sides. Under
// Ulysses whole sequences of the rank's share of the heads, of keys and values one at least; else
// all heads of a block.
LayerAttention HeadsOfRank(const LayerAttention& attention, const ContextParallel& context);
int64_t TokensOfBlock(const BatchArithmetic& batch);

}  // namespace troupe
