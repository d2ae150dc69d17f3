#include "actors/model/measured_costs.h"

#include <gtest/gtest.h>

#include "tests/support/cpu_clock.h"

namespace troupe {
namespace {

TEST(MeasuredCosts, EveryPartIsTimed) {
  const ModelConfig config{.hidden_size = 64,
                           .intermediate_size = 128,
                           .num_hidden_layers = 24,
                           .num_attention_heads = 4,
                           .num_key_value_heads = 2,
                           .head_dim = 16,
                           .vocab_size = 2000,
                           .max_position_embeddings = 64};
  const BatchArithmetic batch{
      .micro_batch_size = 2, .global_batch_size = 8, .seq_len = 32, .num_microbatches = 4};
  for (const bool bfloat16 : {false, true}) {
    const ModelCosts costs =
        MeasureModelCosts(config, batch, {.compute_bytes = bfloat16 ? 2 : 4}, Recompute::kNone,
                          bfloat16 ? DType::kBFloat16 : DType::kFloat32,
                          /*num_threads=*/1, testing::CpuClock());
    EXPECT_GT(costs.layers.at(0).forward_ns, 0);
    EXPECT_GT(costs.layers.at(0).backward_input_ns, 0);
    EXPECT_GT(costs.layers.at(0).backward_weight_ns, 0);
    EXPECT_GT(costs.head.forward_ns, costs.layers.at(0).forward_ns)
        << "a head of 2,000 words is dearer than this layer";
    EXPECT_GT(costs.layers.at(0).backward_ns, costs.layers.at(0).backward_input_ns);
    EXPECT_LT(costs.embedding.WorkNs(), costs.head.WorkNs())
        << "rows are looked up, not multiplied";
    EXPECT_GT(costs.hop_ns, 0);
  }
}

// Of a rank that shares sequences, alone: as if the others' blocks were there.
TEST(MeasuredCosts, OfSharedSequencesNeedNoOtherRank) {
  const ModelConfig config{.hidden_size = 32,
                           .intermediate_size = 64,
                           .num_hidden_layers = 2,
                           .num_attention_heads = 4,
                           .num_key_value_heads = 2,
                           .head_dim = 8,
                           .vocab_size = 100};
  const auto layer = [&config](const ContextParallel& context, Recompute recompute) {
    const BatchArithmetic batch{.micro_batch_size = 1,
                                .global_batch_size = 4,
                                .seq_len = 256,
                                .num_microbatches = 4,
                                .context = context};
    return MeasureModelCosts(config, batch, {}, recompute, DType::kFloat32, /*num_threads=*/1,
                             testing::CpuClock())
        .layers.front();
  };
  const StageCost whole = layer({}, Recompute::kNone);
  for (const auto method :
       {ContextMethod::kRing, ContextMethod::kAllGather, ContextMethod::kUlysses}) {
    const ContextParallel context{4, method, SequenceLayout::kContiguous};
    const StageCost share = layer(context, Recompute::kNone);
    EXPECT_GT(share.forward_ns, 0) << ContextMethodName(method);
    EXPECT_LT(share.backward_ns, whole.backward_ns) << ContextMethodName(method);
    EXPECT_GT(layer(context, Recompute::kFull).backward_ns, share.backward_ns)
        << ContextMethodName(method) << ": Forward is computed again";
  }
}

}  // namespace
}  // namespace troupe
