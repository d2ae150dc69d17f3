#include "actors/plan/kernel_memory.h"

#include <algorithm>
#include <vector>

#include "actors/plan/unit_tensors.h"

namespace troupe {
namespace {

constexpr int64_t kFloatBytes = 4;

int64_t RoundedUp(int64_t count, int64_t block) { return (count + block - 1) / block * block; }
int64_t Aligned(int64_t num_bytes) { return RoundedUp(num_bytes, 64); }

struct ProductSizes {
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
};

std::vector<ProductSizes> LinearsOf(const StageShape& s, int unit) {
  const int64_t tokens = s.batch.tokens_per_microbatch();
  std::vector<ProductSizes> linears;
  for (const LayerProduct& product : s.model.unit(unit).products) {
    linears.push_back({RowsOf(product, tokens), product.in, product.out});
  }
  return linears;
}

bool HasProducts(const NumberWidths& widths) { return widths.compute_bytes <= kFloatBytes; }

int64_t SpreadBytes(int64_t rows, int64_t columns, VectorIsa isa) {
  return Aligned(rows * SpreadColumns(columns, isa) * kFloatBytes);
}

int64_t PackedBytes(const ProductSizes& l, const NumberWidths& widths, VectorIsa isa) {
  const bool widens = WidensBFloat16(widths, isa);
  if (isa == VectorIsa::kAvx2) {
    const bool both = widens || SpreadColumns(l.in, isa) != l.in;
    return SpreadBytes(l.in, l.out, isa) + (both ? SpreadBytes(l.out, l.in, isa) : 0);
  }
  const int64_t bytes = widens ? kFloatBytes : widths.compute_bytes;
  const int64_t depth_block = 16 * kFloatBytes / bytes;
  const auto blocks = [&](int64_t columns, int64_t depth) {
    return RoundedUp(columns, 64) * RoundedUp(depth, depth_block) * bytes;
  };
  return blocks(l.out, l.in) + blocks(l.in, l.out);
}

int64_t ProductBytes(const ProductSizes& l, const NumberWidths& widths, VectorIsa isa) {
  const bool widens = WidensBFloat16(widths, isa);
  if (isa != VectorIsa::kAvx2 && !widens) return 0;
  const int64_t x = SpreadBytes(l.tokens, l.in, isa), y = SpreadBytes(l.tokens, l.out, isa);
  if (!widens) return x + y;
  const int64_t weight = SpreadBytes(l.out, l.in, isa);
  const int64_t dense_x = Aligned(l.tokens * l.in * kFloatBytes);
  const int64_t dense_y = Aligned(l.tokens * l.out * kFloatBytes);
  return std::max({x + weight + dense_y, y + weight + dense_x, x + y});
}

// For each thread a chunk of queries, a block of 192 keys, the scores of 48 queries against it, and
// the gradients of one key head's keys and values.
int64_t AttentionBytes(const LayerAttention& a, const StageShape& s) {
  constexpr int64_t kQueries = 48, kKeys = 192, kRows = 768;
  const int64_t group = a.num_heads / a.num_kv_heads;
  const int64_t rows = group * RoundedUp((kRows + group - 1) / group, kQueries);
  const int64_t stride = RoundedUp(a.head_dim, 32);
  const int64_t floats = rows * (3 * stride + 18) + 3 * kKeys * stride + 2 * kQueries * kKeys +
                         2 * RoundedUp(TokensOfBlock(s.batch), kKeys) * stride;
  const int64_t threads =
      std::min<int64_t>(s.num_threads, s.batch.micro_batch_size * a.num_kv_heads);
  return std::max<int64_t>(threads, 1) * floats * kFloatBytes;
}

}  // namespace

int64_t SpreadColumns(int64_t columns, VectorIsa isa) {
  constexpr int64_t kLine = 16;  // elements
  const int64_t lines = RoundedUp(columns, kLine) / kLine;
  return isa == VectorIsa::kAvx2 && lines % 8 == 0 ? (lines + 1) * kLine : columns;
}

bool WidensBFloat16(const NumberWidths& widths, VectorIsa isa) {
  return widths.compute_bytes == 2 && isa != VectorIsa::kAvx512Bf16;
}

int64_t PackedWeightsBytes(const StageShape& s, int unit, VectorIsa isa) {
  if (!HasProducts(s.widths)) return 0;
  int64_t num_bytes = 0;
  for (const ProductSizes& linear : LinearsOf(s, unit)) {
    num_bytes += PackedBytes(linear, s.widths, isa);
  }
  return num_bytes;
}

int64_t PackedWeightsBytes(const StageShape& s, VectorIsa isa) {
  int64_t num_bytes = 0;
  for (const int unit : UnitsOf(s.model, s.layout)) num_bytes += PackedWeightsBytes(s, unit, isa);
  return num_bytes;
}

int64_t KernelScratchBytes(const StageShape& s, VectorIsa isa) {
  const std::vector<int> units = UnitsOf(s.model, s.layout);
  int64_t most = 0;
  if (HasProducts(s.widths)) {
    for (const int unit : units) {
      for (const ProductSizes& linear : LinearsOf(s, unit)) {
        most = std::max(most, ProductBytes(linear, s.widths, isa));
      }
    }
    constexpr int64_t kThreadBytes = int64_t{2} << 20;
    if (isa != VectorIsa::kAvx2) most += s.num_threads * kThreadBytes;
  }
  for (const int unit : units) {
    const LayerSpec& spec = s.model.unit(unit);
    if (!spec.attention) continue;
    most = std::max(most, AttentionBytes(HeadsOfRank(*spec.attention, s.batch.context), s));
  }
  return most;
}

}  // namespace troupe
