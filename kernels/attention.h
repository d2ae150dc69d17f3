// Grouped-query attention, blockwise, with log-sum-exp (Dao et al. 2022; Milakov & Gimelshein
// 2018). Never holds a (queries x keys) matrix: memory is linear in the sequence.
//   B sequences, Sq queries and Sk keys a sequence, H query heads, K key heads (H % K == 0), D
//   head size. Query head h reads key head h / (H / K).
//   S = scale * Q K^T + mask;  lse = log sum_j exp S (natural);  out = exp(S - lse) V
// The same op serves one block of ring attention: offsets and mask say where the block's keys stand
// against its queries, and MergeAttention joins the partial results.
#pragma once

#include "kernels/cpu_capabilities.h"
#include "kernels/exec.h"

namespace troupe {

enum class AttentionMask : uint8_t {
  kCausal,        // query i sees key j where key_offset + j <= query_offset + i
  kStrictCausal,  // ... < ...
  kFull,          // every query sees every key
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
  int64_t query_offset = 0;
  int64_t key_offset = 0;
};

// Workspace of forward and backward on a CPU, whichever is larger.
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

struct AttentionBackwardArgs {
  TensorView dq;         // (B*Sq, H, D)
  TensorView dk;         // (B*Sk, K, D)
  TensorView dv;         // (B*Sk, K, D)
  ConstTensorView dout;  // (B*Sq, H, D)
  ConstTensorView q;
  ConstTensorView k;
  ConstTensorView v;
  ConstTensorView out;      // final (merged) output
  ConstTensorView lse;      // final (merged) log-sum-exp, (B, H, Sq)
  bool accumulate = false;  // dq, dk, dv +=: they are then float32 (float64)
};
// With P = exp(S - lse), Delta = rowsum(dout * out):  dV = P^T dout;  dS = P * (dout V^T - Delta);
// dQ = scale * dS K;  dK = scale * dS^T Q.
void AttentionBackward(const Exec& exec, const AttentionShape& shape,
                       const AttentionBackwardArgs& args);

struct MergeAttentionArgs {
  TensorView out;             // (B*Sq, H, D) float32 or float64: earlier result, becomes the merged
  TensorView lse;             // (B, H, Sq)   likewise
  ConstTensorView block_out;  // the new block's result
  ConstTensorView block_lse;
};
// lse' = log(exp lse + exp block_lse); out' = out * exp(lse - lse') + block_out * exp(block_lse -
// lse'). A side with lse = -inf counts nothing; where both are, the row stays 0 and -inf.
void MergeAttention(const Exec& exec, int64_t num_sequences, const MergeAttentionArgs& args);

}  // namespace troupe
