// The vector bodies of the elementwise, row and attention kernels: one source (the *.inc files
// here), compiled once for AVX2 with FMA and once for AVX-512, and chosen at run time. They take
// raw rows, float32 or bfloat16 in any mix unless said otherwise, with arithmetic in float32.
//   B1. An element's bits do not depend on where it lies in a row or view: tails are masked, fused
//       multiply-adds explicit, and a row's sums have one order.
//   B2. The translation units built for a CPU include nothing that emits shared inline functions,
//       so that no older CPU ever runs their code.
#pragma once

#include <cstdint>

#include "kernels/cpu_capabilities.h"

namespace troupe {

// The rows of a view; the caller knows how many and how long. Null: absent.
struct Rows {
  void* data = nullptr;
  int64_t stride = 0;        // elements
  bool is_bfloat16 = false;  // else float32
};

struct RmsNormRows {
  Rows y, x, delta, sum;  // delta and sum: x + delta goes to sum and is what is normed, or absent
  Rows weight;
  float* rstd = nullptr;
  float eps = 0;
};

struct RmsNormGradRows {
  Rows dx, dy, x, residual, weight;  // residual may be absent; dx too
  float* dweight = nullptr;          // may be absent
  const float* rstd = nullptr;
};

struct SwigluGradRows {
  Rows dgate, dup, dout, gate, up, out;  // out may be absent
};

struct AdamWRun {
  float* param = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  Rows grad;
  Rows compute;  // may be absent
  float factor, one_minus_beta1, beta2, one_minus_beta2, root_scale, eps, keep, step_size;
};

// One key head of one sequence and the query heads that read it, all rows strided.
struct AttentionHeads {
  int64_t query_len, key_len, head_dim;
  int64_t group;  // query heads; head g lies g * head_dim columns on
  float scale;
  // Query i sees the keys [first_key[i], end_key[i]); null: [0, i + 1) if causal, else all.
  const int32_t *first_key, *end_key;
  bool causal;
  Rows q, k, v;
  // Forward gives out and lse, or takes acc, max and sum on from where they are; backward reads out
  // and lse. The numbers are (group, query_len).
  Rows out, acc;  // acc absent: out
  float *lse, *max, *sum;
  // Backward alone:
  Rows dout, dq, dk, dv;
  bool accumulate_dq, accumulate_dkv;
  float* workspace;  // attention_layout.h
};

struct VectorBodies {
  const char* isa;
  void (*cast)(Rows out, Rows in, int64_t rows, int64_t columns);
  void (*add)(Rows out, Rows a, Rows b, int64_t rows, int64_t columns);
  // Of bfloat16, as ordered_sum.h says.
  void (*ordered_sum_bf16)(void* out, const void* const* inputs, int num_inputs, int64_t count);
  void (*rms_norm)(const RmsNormRows& args, int64_t rows, int64_t columns);
  void (*rms_norm_grad)(const RmsNormGradRows& args, int64_t rows, int64_t columns);
  // One token's heads; table row: cosines, then sines. direction 1 or -1.
  void (*rotate)(Rows x, int64_t row, int64_t heads, int64_t head_dim, const float* table_row,
                 float direction);
  void (*swiglu)(Rows out, Rows gate, Rows up, int64_t rows, int64_t columns);
  void (*swiglu_grad)(const SwigluGradRows& args, int64_t rows, int64_t columns);
  // One row; returns -log p(label). dlogits may be absent.
  double (*cross_entropy)(Rows dlogits, Rows logits, int64_t row, int64_t vocab, int64_t label);
  void (*adamw)(const AdamWRun& run, int64_t count);
  // The sum of squares of `count` <= 1,024 elements, in squared_norm.h's order.
  double (*norm_leaf)(Rows grad, int64_t first, int64_t count);
  void (*attention)(const AttentionHeads& heads);
  void (*attention_grad)(const AttentionHeads& heads);
  // One head of one sequence.
  void (*finish_attention)(Rows out, float* lse, Rows acc, const float* max, const float* sum,
                           int64_t rows, int64_t columns);
};

extern const VectorBodies kAvx2Bodies;
extern const VectorBodies kAvx512Bodies;

// The best bodies for a CPU; null where the specification must serve.
const VectorBodies* VectorBodiesFor(const CpuCapabilities& cpu);

}  // namespace troupe
