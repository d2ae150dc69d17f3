// Grouped-query attention, blockwise, with log-sum-exp (Dao et al. 2022; Milakov & Gimelshein
// 2018). Never holds a (queries x keys) matrix: memory is linear in the sequence.
//   B sequences, Sq queries and Sk keys a sequence, H query heads, K key heads (H % K == 0), D
//   head size. Query head h reads key head h / (H / K).
//   S = scale * Q K^T + mask;  lse = log sum_j exp S (natural);  out = exp(S - lse) V
// AttentionForward takes all keys at once. AttendBlock takes them block by block, as ring attention
// receives them (Liu et al. 2023), in any order. AttentionBackward takes all keys or one block.
#pragma once

#include <span>

#include "kernels/cpu_capabilities.h"
#include "kernels/exec.h"

namespace troupe {

// Nothing is computed for a tile of queries and keys in which no query sees a key.
enum class AttentionMask : uint8_t {
  kCausal,  // query i sees the keys j <= i; Sq == Sk
  kFull,    // every query sees every key
  kRanges,  // query i sees the keys [first_key[i], end_key[i])
};

struct AttentionShape {
  int64_t num_sequences = 1;  // B
  int64_t query_len = 0;      // Sq
  int64_t key_len = 0;        // Sk
  int64_t num_heads = 0;      // H
  int64_t num_kv_heads = 0;   // K
  int64_t head_dim = 0;       // D
  double scale = 0.0;         // 0: 1 / sqrt(D)
  AttentionMask mask = AttentionMask::kCausal;
  // kRanges: (B*Sq), or (Sq) where all sequences are alike; borrowed for the call. Both lie in
  // [0, Sk], and within a sequence neither falls from one query to the next. first_key >= end_key:
  // the query sees no key.
  std::span<const int32_t> first_key{};
  std::span<const int32_t> end_key{};
};

// Workspace of AttentionForward, AttendBlock and AttentionBackward on a CPU, whichever is largest.
// Of the shape it reads the sizes alone.
int64_t AttentionWorkspaceBytes(const AttentionShape& shape, int num_threads = 1,
                                const CpuCapabilities& cpu = ThisCpu());

struct AttentionForwardArgs {
  TensorView out;     // (B*Sq, H, D) overwritten; the dtype of q, or float32
  TensorView lse;     // (B, H, Sq) float32 (float64), dense, overwritten
  ConstTensorView q;  // (B*Sq, H, D)
  ConstTensorView k;  // (B*Sk, K, D)
  ConstTensorView v;  // (B*Sk, K, D)
};
// A query that sees no key gets out = 0 and lse = -inf.
void AttentionForward(const Exec& exec, const AttentionShape& shape,
                      const AttentionForwardArgs& args);

// Attention over the blocks of keys so far, not normalised: with m = max_j S, the sums of
// exp(S - m) V and of exp(S - m). float32 (float64). A query that has seen no key has acc = 0,
// max = -inf and sum = 0.
struct AttentionAccumulators {
  TensorView acc;  // (B*Sq, H, D)
  TensorView max;  // (B, H, Sq) dense
  TensorView sum;  // (B, H, Sq) dense
};
// As before any block.
void ResetAttention(const Exec& exec, const AttentionAccumulators& accumulators);

struct AttentionBlock {
  ConstTensorView q;  // (B*Sq, H, D)
  ConstTensorView k;  // (B*Sk, K, D), the block's
  ConstTensorView v;  // (B*Sk, K, D)
};
// Adds one block of keys; shape.key_len and the mask are the block's. Queries that see none of its
// keys keep what they have.
void AttendBlock(const Exec& exec, const AttentionShape& shape,
                 const AttentionAccumulators& accumulators, const AttentionBlock& block);

// out = acc / sum (B*Sq, H, D), of any dtype but float64 for float32; lse = max + log sum
// (B, H, Sq) dense, the dtype of acc. A query that saw no key gets out = 0 and lse = -inf.
void FinishAttention(const Exec& exec, int64_t num_sequences,
                     const AttentionAccumulators& accumulators, TensorView out, TensorView lse);

struct AttentionBackwardArgs {
  TensorView dq;         // (B*Sq, H, D)
  TensorView dk;         // (B*Sk, K, D)
  TensorView dv;         // (B*Sk, K, D)
  ConstTensorView dout;  // (B*Sq, H, D)
  ConstTensorView q;
  ConstTensorView k;
  ConstTensorView v;
  ConstTensorView out;          // over all blocks of keys
  ConstTensorView lse;          // over all blocks of keys, (B, H, Sq)
  bool accumulate_dq = false;   // dq +=: it is then float32 (float64)
  bool accumulate_dkv = false;  // dk, dv +=: they are then float32 (float64)
};
// With P = exp(S - lse), Delta = rowsum(dout * out):  dV = P^T dout;  dS = P * (dout V^T - Delta);
// dQ = scale * dS K;  dK = scale * dS^T Q.
void AttentionBackward(const Exec& exec, const AttentionShape& shape,
                       const AttentionBackwardArgs& args);

}  // namespace troupe
