#include "actors/plan/cost_model.h"

#include <gtest/gtest.h>

#include "actors/plan/parameter_table.h"

namespace troupe {
namespace {

ModelConfig Llama405B() {
  return {.hidden_size = 16'384,
          .intermediate_size = 53'248,
          .num_hidden_layers = 126,
          .num_attention_heads = 128,
          .num_key_value_heads = 8,
          .head_dim = 128,
          .vocab_size = 128'256};
}

// 6 N + 12 L a d s, N without norms and the input embedding.
TEST(CostModel, FollowsThePublishedFormula) {
  const ModelConfig c = Llama405B();
  const ParameterTable table(c);
  EXPECT_EQ(table.num_elements(), 405'853'388'800);
  double products = 0;
  for (int i = 0; i < table.size(); ++i) {
    if (!table[i].one_dimensional && i != table.embedding_index()) {
      products += static_cast<double>(table[i].num_elements());
    }
  }
  constexpr double kSeqLen = 8192;
  const double expected = 6 * products + 12.0 * 126 * 128 * 128 * kSeqLen;
  const double embedding = UnitFlops(EmbeddingSpec(c), 8192).total();
  EXPECT_DOUBLE_EQ(ModelFlops(c, 8192).total() - embedding, expected);
  EXPECT_NEAR(expected, 2.625e12, 0.002e12);
}

TEST(CostModel, BackwardIsTwiceForward) {
  const TokenFlops layer = UnitFlops(DecoderLayerSpec(Llama405B()), 8192);
  EXPECT_DOUBLE_EQ(layer.backward_input + layer.backward_weight, 2 * layer.forward);
  // Attention has no weights: all of its backward is for the input.
  EXPECT_GT(layer.backward_input, layer.backward_weight);
}

TEST(CostModel, TheHeadRunsInForward) {
  const TokenFlops head = UnitFlops(HeadSpec(Llama405B()), 8192);
  EXPECT_DOUBLE_EQ(head.forward, 6.0 * 16'384 * 128'256);
  EXPECT_EQ(head.backward_input, 0);
  EXPECT_EQ(head.backward_weight, 0);
}

}  // namespace
}  // namespace troupe
