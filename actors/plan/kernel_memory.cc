#include "actors/plan/kernel_memory.h"

#include <algorithm>
#include <vector>

namespace troupe {
namespace {

constexpr int64_t kFloatBytes = 4;

int64_t RoundedUp(int64_t count, int64_t block) { return (count + block - 1) / block * block; }
int64_t Aligned(int64_t num_bytes) { return RoundedUp(num_bytes, 64); }

struct Linear {
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
};

// The products of one layer.
std::vector<Linear> LayerLinears(const StageShape& s) {
  const ModelConfig& c = s.config;
  const int64_t tokens = s.batch.tokens_per_microbatch();
  return {{tokens, c.hidden_size, c.query_size() + 2 * c.key_value_size()},
          {tokens, c.query_size(), c.hidden_size},
          {tokens, c.hidden_size, 2 * c.intermediate_size},
          {tokens, c.intermediate_size, c.hidden_size}};
}

Linear HeadLinear(const StageShape& s) {
  const int64_t tokens = s.batch.tokens_per_microbatch();
  return {HeadChunkTokens(s.config, tokens), s.config.hidden_size, s.config.vocab_size};
}

bool HasProducts(const NumberWidths& widths) { return widths.compute_bytes <= kFloatBytes; }

int64_t PackedBytes(const Linear& l, const NumberWidths& widths, VectorIsa isa) {
  if (WidensBFloat16(widths, isa)) return 2 * Aligned(l.in * l.out * kFloatBytes);
  if (isa == VectorIsa::kAvx2) return Aligned(l.in * l.out * kFloatBytes);
  const int64_t depth_block = 16 * kFloatBytes / widths.compute_bytes;
  const auto blocks = [&](int64_t columns, int64_t depth) {
    return RoundedUp(columns, 64) * RoundedUp(depth, depth_block) * widths.compute_bytes;
  };
  return blocks(l.out, l.in) + blocks(l.in, l.out);
}

int64_t ProductBytes(const Linear& l, const NumberWidths& widths, VectorIsa isa) {
  return WidensBFloat16(widths, isa)
             ? Aligned(l.tokens * l.in * kFloatBytes) + Aligned(l.tokens * l.out * kFloatBytes) +
                   Aligned(l.in * l.out * kFloatBytes)
             : 0;
}

// Keys and values of one head with their gradients and transposes, and a block of 32 queries
// against 128 keys, for each thread.
int64_t AttentionBytes(const StageShape& s) {
  constexpr int64_t kQueries = 32;
  constexpr int64_t kKeys = 128;
  const int64_t head = RoundedUp(s.batch.seq_len, 16) * s.config.head_dim;
  const int64_t floats = 5 * head + 3 * RoundedUp(kQueries * s.config.head_dim, 16) +
                         2 * kQueries * kKeys + 3 * kQueries;
  const int64_t threads =
      std::min<int64_t>(s.num_threads, s.batch.micro_batch_size * s.config.num_key_value_heads);
  return std::max<int64_t>(threads, 1) * floats * kFloatBytes;
}

}  // namespace

bool WidensBFloat16(const NumberWidths& widths, VectorIsa isa) {
  return widths.compute_bytes == 2 && isa != VectorIsa::kAvx512Bf16;
}

int64_t PackedWeightsBytes(const StageShape& s, VectorIsa isa) {
  if (!HasProducts(s.widths)) return 0;
  int64_t layer = 0;
  for (const Linear& linear : LayerLinears(s)) layer += PackedBytes(linear, s.widths, isa);
  const int64_t head = s.layout.has_head() ? PackedBytes(HeadLinear(s), s.widths, isa) : 0;
  return s.layout.num_layers * layer + head;
}

int64_t KernelScratchBytes(const StageShape& s, VectorIsa isa) {
  int64_t products = 0;
  if (HasProducts(s.widths)) {
    for (const Linear& linear : LayerLinears(s)) {
      products = std::max(products, ProductBytes(linear, s.widths, isa));
    }
    if (s.layout.has_head()) {
      products = std::max(products, ProductBytes(HeadLinear(s), s.widths, isa));
    }
    constexpr int64_t kThreadBytes = int64_t{2} << 20;
    if (isa != VectorIsa::kAvx2) products += s.num_threads * kThreadBytes;
  }
  return std::max(products, AttentionBytes(s));
}

}  // namespace troupe
