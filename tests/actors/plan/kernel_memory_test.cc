// The formulas against what the kernels decide, for every kind of CPU on any machine. ctest runs
// the suite at every level of ONEDNN_MAX_CPU_ISA that the machine has as well, for ThisCpu().
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
  shape.model = ModelConfig{.hidden_size = s.hidden,
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
  const ModelConfig& c = s.model.config;
  const int64_t tokens = s.batch.tokens_per_microbatch();
  std::vector<MatmulShape> products;
  for (int i = 0; i < s.layout.num_layers; ++i) {
    products.push_back({tokens, c.hidden_size, c.query_size() + 2 * c.key_value_size(), dtype});
    products.push_back({tokens, c.query_size(), c.hidden_size, dtype});
    products.push_back({tokens, c.hidden_size, 2 * c.intermediate_size, dtype});
    products.push_back({tokens, c.intermediate_size, c.hidden_size, dtype});
  }
  products.push_back({ChunkTokens(c.vocab_size, tokens), c.hidden_size, c.vocab_size, dtype});
  return products;
}

constexpr VectorIsa kIsas[] = {VectorIsa::kAvx2, VectorIsa::kAvx512, VectorIsa::kAvx512Bf16};

// What the kernels know of a CPU that the plan knows by its instructions.
CpuCapabilities CapabilitiesOf(VectorIsa isa) {
  switch (isa) {
    case VectorIsa::kAvx2:
      return {.vector_lanes = 8};
    case VectorIsa::kAvx512:
      return {.vector_lanes = 16, .blocked_products = true};
    case VectorIsa::kAvx512Bf16:
      return {.vector_lanes = 16, .blocked_products = true, .bfloat16_products = true};
  }
  return {};
}

TEST(KernelMemoryTest, ThisCpuIsWhatItsInstructionsSay) {
  CpuCapabilities said = CapabilitiesOf(ThisVectorIsa());
  if (ThisCpu().vector_lanes == 0) said.vector_lanes = 0;  // less than AVX2
  EXPECT_EQ(ThisCpu(), said) << VectorIsaName(ThisVectorIsa());
}

TEST(KernelMemoryTest, PackedWeightsAreWhatTheKernelsPack) {
  for (const VectorIsa isa : kIsas) {
    for (const Sizes& sizes : kSizes) {
      for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
        const StageShape shape = ShapeOf(sizes, dtype, 1);
        int64_t packed = 0;
        for (const MatmulShape& product : ProductsOf(shape, dtype)) {
          packed += PackedWeightBytes(product, WeightUse::kForward, CapabilitiesOf(isa)) +
                    PackedWeightBytes(product, WeightUse::kInputGrad, CapabilitiesOf(isa));
        }
        EXPECT_EQ(PackedWeightsBytes(shape, isa), packed)
            << "hidden " << sizes.hidden << " " << DTypeName(dtype) << " " << VectorIsaName(isa);
      }
    }
  }
}

TEST(KernelMemoryTest, ScratchIsWhatTheKernelsTake) {
  for (const VectorIsa isa : kIsas) {
    const CpuCapabilities cpu = CapabilitiesOf(isa);
    for (const Sizes& sizes : kSizes) {
      for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
        for (const int threads : {1, 2, 7}) {
          const StageShape shape = ShapeOf(sizes, dtype, threads);
          int64_t most = AttentionWorkspaceBytes({.num_sequences = shape.batch.micro_batch_size,
                                                  .query_len = sizes.seq_len,
                                                  .key_len = sizes.seq_len,
                                                  .num_heads = sizes.heads,
                                                  .num_kv_heads = sizes.kv_heads,
                                                  .head_dim = sizes.head_dim},
                                                 threads, cpu);
          for (const MatmulShape& product : ProductsOf(shape, dtype)) {
            most = std::max(most, MatmulWorkspaceBytes(product, threads, cpu));
          }
          EXPECT_EQ(KernelScratchBytes(shape, isa), most)
              << "hidden " << sizes.hidden << " " << DTypeName(dtype) << " " << threads
              << " threads, " << VectorIsaName(isa);
        }
      }
    }
  }
}

// Where ranks share sequences, of a block of keys; with exchanged heads of those that a rank has.
TEST(KernelMemoryTest, AttentionTakesWhatARanksPartNeeds) {
  for (const ContextMethod method : {ContextMethod::kRing, ContextMethod::kUlysses}) {
    StageShape shape = ShapeOf({64, 96, 8, 4, 32, 100, 4096}, DType::kFloat32, 2);
    shape.batch.context = {.num_ranks = 4, .method = method};
    for (LayerSpec& kind : shape.model.layer_kinds) kind.products.clear();  // which take more
    shape.model.head.products.clear();
    const bool exchanges = method == ContextMethod::kUlysses;
    const int64_t tokens = exchanges ? 4096 : 1024;
    const int64_t attention =
        AttentionWorkspaceBytes({.num_sequences = shape.batch.micro_batch_size,
                                 .query_len = tokens,
                                 .key_len = tokens,
                                 .num_heads = exchanges ? 2 : 8,
                                 .num_kv_heads = exchanges ? 1 : 4,
                                 .head_dim = 32},
                                2, CapabilitiesOf(VectorIsa::kAvx2));
    EXPECT_EQ(KernelScratchBytes(shape, VectorIsa::kAvx2), attention) << ContextMethodName(method);
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
