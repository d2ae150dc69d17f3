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
    const ModelCosts costs = MeasureModelCosts(config, batch, {.compute_bytes = bfloat16 ? 2 : 4},
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

}  // namespace
}  // namespace troupe
