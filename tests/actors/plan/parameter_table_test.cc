#include "actors/plan/parameter_table.h"

#include <gtest/gtest.h>

#include <set>

namespace troupe {
namespace {

ModelConfig Llama8B() {
  return {.hidden_size = 4096,
          .intermediate_size = 14336,
          .num_hidden_layers = 32,
          .num_attention_heads = 32,
          .num_key_value_heads = 8,
          .head_dim = 128,
          .vocab_size = 128256};
}

TEST(ParameterTable, CountsLlamaExactly) {
  EXPECT_EQ(ParameterTable(Llama8B()).num_elements(), 8'030'261'248);
  ModelConfig large{.hidden_size = 16384,
                    .intermediate_size = 53248,
                    .num_hidden_layers = 126,
                    .num_attention_heads = 128,
                    .num_key_value_heads = 8,
                    .head_dim = 128,
                    .vocab_size = 128256};
  EXPECT_EQ(ParameterTable(large).num_elements(), 405'853'388'800);
}

TEST(ParameterTable, NamesAndShapesAreHuggingFaces) {
  const ParameterTable table(Llama8B());
  const int k = table.Find("model.layers.3.self_attn.k_proj.weight");
  ASSERT_GE(k, 0);
  EXPECT_EQ(k, table.OfUnit(table.model().layer_unit(3))[2]);
  EXPECT_EQ(table[k].layer, 3);
  EXPECT_EQ(table[k].shape(), (std::vector<int64_t>{1024, 4096}));
  EXPECT_TRUE(table[k].decay);
  const int norm = table.Find("model.norm.weight");
  EXPECT_EQ(norm, table.OfUnit(table.model().head_unit()).front());
  EXPECT_EQ(table[norm].shape(), (std::vector<int64_t>{4096}));
  EXPECT_FALSE(table[norm].decay);
  EXPECT_EQ(table.Find("lm_head.weight"), table.size() - 1);
  EXPECT_EQ(table.Find("model.layers.32.mlp.up_proj.weight"), -1);
  std::set<std::string> names;
  for (const auto& spec : table.parameters()) names.insert(spec.name);
  EXPECT_EQ(static_cast<int>(names.size()), table.size());
}

TEST(ParameterTable, ATiedHeadIsTheEmbedding) {
  ModelConfig config = Llama8B();
  config.tie_word_embeddings = true;
  const ParameterTable table(config);
  EXPECT_TRUE(table.tied());
  const int head = table.model().head_unit();
  EXPECT_EQ(table.OfUnit(head).back(), table.embedding_index());
  EXPECT_EQ(table.OwnerOf(table.embedding_index()), table.model().embedding_unit());
  EXPECT_EQ(table.Find("lm_head.weight"), -1);
}

TEST(ParameterInitializer, DependsOnSeedNameAndElementAlone) {
  const ParameterTable table(Llama8B());
  const auto& gate = table[table.Find("model.layers.0.mlp.gate_proj.weight")];
  const auto& up = table[table.Find("model.layers.0.mlp.up_proj.weight")];
  const ParameterInitializer a(1, gate, 0.02);
  EXPECT_EQ(a(77), ParameterInitializer(1, gate, 0.02)(77));
  EXPECT_NE(a(77), ParameterInitializer(2, gate, 0.02)(77));
  EXPECT_NE(a(77), ParameterInitializer(1, up, 0.02)(77));
  double sum = 0;
  double squares = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    sum += a(i);
    squares += a(i) * a(i);
  }
  EXPECT_NEAR(sum / kDraws, 0, 0.001);
  EXPECT_NEAR(squares / kDraws, 0.02 * 0.02, 0.02 * 0.02 * 0.05);
  EXPECT_EQ(ParameterInitializer(1, table[table.Find("model.norm.weight")], 0.02)(5), 1.0);
}

}  // namespace
}  // namespace troupe
