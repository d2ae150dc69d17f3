// The formulas against the kernels of this CPU; ctest runs the suite under caps of
// ONEDNN_MAX_CPU_ISA as well, so that a CPU tests every rule that it can have.
#include "actors/plan/kernel_memory.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/matmul.h"

namespace troupe {
namespace {

struct Sizes {
  int64_t hidden, intermediate, heads, kv_heads, head_dim, vocab, seq_len;
};
const std::vector<Sizes> kSizes = {{32, 64, 4, 2, 8, 256, 32},
                                   {96, 256, 6, 2, 16, 256, 128},
                                   {200, 344, 5, 5, 40, 1001, 70},
                                   {256, 688, 8, 4, 32, 4096, 256},
                                   {64, 192, 4, 2, 16, 32000, 512}};

StageShape ShapeOf(const Sizes& s, DType dtype, int num_threads) {
  StageShape shape;
  shape.config = {.hidden_size = s.hidden,
                  .intermediate_size = s.intermediate,
                  .num_hidden_layers = 3,
                  .num_attention_heads = s.heads,
                  .num_key_value_heads = s.kv_heads,
                  .head_dim = s.head_dim,
                  .vocab_size = s.vocab};
  shape.layout = {.stage = 0, .num_stages = 1, .first_layer = 0, .num_layers = 3};
  shape.batch = {.micro_batch_size = 2, .seq_len = s.seq_len};
  shape.widths = {.compute_bytes = DTypeBytes(dtype), .master_bytes = 4};
  shape.num_threads = num_threads;
  return shape;
}

// As the model builds its linear layers.
std::vector<MatmulShape> ProductsOf(const StageShape& s, DType dtype) {
  const ModelConfig& c = s.config;
  const int64_t tokens = s.batch.tokens_per_microbatch();
  std::vector<MatmulShape> products;
  for (int i = 0; i < s.layout.num_layers; ++i) {
    products.push_back({tokens, c.hidden_size, c.query_size() + 2 * c.key_value_size(), dtype});
    products.push_back({tokens, c.query_size(), c.hidden_size, dtype});
    products.push_back({tokens, c.hidden_size, 2 * c.intermediate_size, dtype});
    products.push_back({tokens, c.intermediate_size, c.hidden_size, dtype});
  }
  products.push_back({HeadChunkTokens(c, tokens), c.hidden_size, c.vocab_size, dtype});
  return products;
}

TEST(KernelMemoryTest, PackedWeightsAreWhatTheKernelsPack) {
  for (const Sizes& sizes : kSizes) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const StageShape shape = ShapeOf(sizes, dtype, 1);
      int64_t packed = 0;
      for (const MatmulShape& product : ProductsOf(shape, dtype)) {
        packed += PackedWeightBytes(product, WeightUse::kForward) +
                  PackedWeightBytes(product, WeightUse::kInputGrad);
      }
      EXPECT_EQ(PackedWeightsBytes(shape, ThisVectorIsa()), packed)
          << "hidden " << sizes.hidden << " " << DTypeBytes(dtype) << " bytes with "
          << VectorIsaName(ThisVectorIsa());
    }
  }
}

TEST(KernelMemoryTest, ScratchIsNoLessThanTheKernelsAskFor) {
  for (const Sizes& sizes : kSizes) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const int threads : {1, 2}) {
        const StageShape shape = ShapeOf(sizes, dtype, threads);
        const int64_t attention =
            AttentionWorkspaceBytes({.num_sequences = shape.batch.micro_batch_size,
                                     .query_len = sizes.seq_len,
                                     .key_len = sizes.seq_len,
                                     .num_heads = sizes.heads,
                                     .num_kv_heads = sizes.kv_heads,
                                     .head_dim = sizes.head_dim},
                                    threads);
        int64_t products = 0;
        for (const MatmulShape& product : ProductsOf(shape, dtype)) {
          products = std::max(products, MatmulWorkspaceBytes(product, threads));
        }
        const int64_t scratch = KernelScratchBytes(shape, ThisVectorIsa());
        EXPECT_GE(scratch, std::max(attention, products)) << "hidden " << sizes.hidden;
        if (!__builtin_cpu_supports("avx2")) continue;  // plain loops take less
        // All beyond that is what AVX-512 may take at other shapes.
        const int64_t beyond =
            ThisVectorIsa() == VectorIsa::kAvx2 ? 0 : threads * (int64_t{2} << 20);
        EXPECT_LE(scratch, std::max(attention, products) + beyond) << "hidden " << sizes.hidden;
      }
    }
  }
}

// Rules that this CPU may not have: one weight of 3 layers' 4, by hand.
TEST(KernelMemoryTest, EveryRuleByHand) {
  StageShape s = ShapeOf({40, 72, 5, 1, 8, 100, 16}, DType::kFloat32, 1);
  s.layout.num_layers = 1;
  // (O, I): 56 x 40, 40 x 40, 144 x 40, 40 x 72, 100 x 40.
  const int64_t elements = 56 * 40 + 40 * 40 + 144 * 40 + 40 * 72 + 100 * 40;
  EXPECT_EQ(PackedWeightsBytes(s, VectorIsa::kAvx2), 4 * elements);
  // Forward: O in 64s, I in 16s; input gradient: I in 64s, O in 16s.
  const int64_t blocked = (64 * 48 + 64 * 48 + 192 * 48 + 64 * 80 + 128 * 48) +
                          (64 * 64 + 64 * 48 + 64 * 144 + 128 * 48 + 64 * 112);
  EXPECT_EQ(PackedWeightsBytes(s, VectorIsa::kAvx512), 4 * blocked);
  EXPECT_EQ(PackedWeightsBytes(s, VectorIsa::kAvx512Bf16), 4 * blocked);
  EXPECT_EQ(KernelScratchBytes(s, VectorIsa::kAvx512), int64_t{2} << 20);
  s.widths = {.compute_bytes = 2, .master_bytes = 4};
  for (const VectorIsa isa : {VectorIsa::kAvx2, VectorIsa::kAvx512}) {
    EXPECT_TRUE(WidensBFloat16(s.widths, isa));
  }
  EXPECT_EQ(PackedWeightsBytes(s, VectorIsa::kAvx2), 2 * 4 * elements);
  EXPECT_EQ(PackedWeightsBytes(s, VectorIsa::kAvx512), 4 * blocked);
  EXPECT_FALSE(WidensBFloat16(s.widths, VectorIsa::kAvx512Bf16));
  const int64_t deeper = (64 * 64 + 64 * 64 + 192 * 64 + 64 * 96 + 128 * 64) +
                         (64 * 64 + 64 * 64 + 64 * 160 + 128 * 64 + 64 * 128);
  EXPECT_EQ(PackedWeightsBytes(s, VectorIsa::kAvx512Bf16), 2 * deeper);
  // 32 tokens by 144 and 40 channels, and the weight.
  EXPECT_EQ(KernelScratchBytes(s, VectorIsa::kAvx512) - (int64_t{2} << 20),
            4 * (32 * 40 + 32 * 144 + 144 * 40));
}

TEST(KernelMemoryTest, RowsEightLinesApartAreSpreadWithAvx2) {
  EXPECT_EQ(SpreadColumns(96, VectorIsa::kAvx2), 96);
  EXPECT_EQ(SpreadColumns(120, VectorIsa::kAvx2), 144);
  EXPECT_EQ(SpreadColumns(128, VectorIsa::kAvx2), 144);
  EXPECT_EQ(SpreadColumns(128, VectorIsa::kAvx512), 128);
}

TEST(KernelMemoryTest, Float64PacksNothing) {
  StageShape s = ShapeOf(kSizes[0], DType::kFloat64, 1);
  EXPECT_EQ(PackedWeightsBytes(s, VectorIsa::kAvx512Bf16), 0);
}

}  // namespace
}  // namespace troupe
