#include "actors/plan/stage_partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "actors/plan/cost_model.h"

namespace troupe {
namespace {

ModelConfig Config(int64_t layers, int64_t vocab, bool tied) {
  return {.hidden_size = 64,
          .intermediate_size = 160,
          .num_hidden_layers = layers,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 16,
          .vocab_size = vocab,
          .tie_word_embeddings = tied};
}

double CostOf(const ModelConfig& config, const StageLayout& stage, int64_t seq_len) {
  double cost = stage.num_layers * UnitFlops(DecoderLayerSpec(config), seq_len).total();
  if (stage.has_embedding()) cost += UnitFlops(EmbeddingSpec(config), seq_len).total();
  if (stage.has_head()) cost += UnitFlops(HeadSpec(config), seq_len).total();
  return cost;
}

RC_GTEST_PROP(StagePartition, LosesAndDoublesNothing, ()) {
  const auto layers = *rc::gen::inRange<int64_t>(1, 40);
  const auto stages = *rc::gen::inRange<int>(1, static_cast<int>(layers) + 1);
  const ModelConfig config =
      Config(layers, *rc::gen::inRange<int64_t>(1, 100'000), *rc::gen::arbitrary<bool>());
  const auto partition = PartitionStages(config, stages, 128);
  RC_ASSERT(partition.ok());
  const ParameterTable table(config);
  int next_layer = 0;
  std::multiset<int> owned;
  for (const StageLayout& stage : *partition) {
    RC_ASSERT(stage.first_layer == next_layer);
    RC_ASSERT(stage.num_layers >= 1);
    next_layer += stage.num_layers;
    for (const int index : OwnedParametersOf(table, stage)) owned.insert(index);
  }
  RC_ASSERT(next_layer == layers);
  RC_ASSERT(static_cast<int>(owned.size()) == table.size());
  RC_ASSERT(std::set<int>(owned.begin(), owned.end()).size() == owned.size());
}

// No other split has a cheaper dearest stage: moving a layer over any border does not help.
RC_GTEST_PROP(StagePartition, IsBalanced, ()) {
  const auto layers = *rc::gen::inRange<int64_t>(2, 24);
  const auto stages = *rc::gen::inRange<int>(2, static_cast<int>(layers) + 1);
  const ModelConfig config = Config(layers, *rc::gen::inRange<int64_t>(1, 50'000), false);
  auto partition = *PartitionStages(config, stages, 64);
  const auto dearest = [&] {
    double most = 0;
    for (const auto& stage : partition) most = std::max(most, CostOf(config, stage, 64));
    return most;
  };
  const double best = dearest();
  for (int border = 1; border < stages; ++border) {
    for (const int direction : {-1, 1}) {
      auto& left = partition[border - 1];
      auto& right = partition[border];
      left.num_layers += direction;
      right.num_layers -= direction;
      if (left.num_layers >= 1 && right.num_layers >= 1) RC_ASSERT(dearest() >= best);
      left.num_layers -= direction;
      right.num_layers += direction;
    }
  }
}

TEST(StagePartition, ALargeVocabularyTakesLayersFromTheLastStage) {
  const auto partition = PartitionStages(Config(8, 20'000, false), 4, 128);
  ASSERT_TRUE(partition.ok());
  EXPECT_LT(partition->back().num_layers, partition->front().num_layers);
}

TEST(StagePartition, ATiedEmbeddingIsHeldTwiceAndOwnedOnce) {
  const ModelConfig config = Config(4, 256, true);
  const ParameterTable table(config);
  const auto partition = *PartitionStages(config, 2, 128);
  EXPECT_THAT(ParametersOf(table, partition[1]), ::testing::Contains(table.embedding_index()));
  EXPECT_THAT(OwnedParametersOf(table, partition[1]),
              ::testing::Not(::testing::Contains(table.embedding_index())));
  EXPECT_THAT(OwnedParametersOf(table, partition[0]), ::testing::Contains(table.embedding_index()));
  EXPECT_EQ(Describe(partition[0]), "layers 0-1 + embedding");
}

TEST(StagePartition, ASlowStageHoldsFewerLayers) {
  const auto partition = PartitionStages(Config(12, 256, false), {.layers = {{1}, {1}, {2}, {1}}});
  ASSERT_TRUE(partition.ok());
  EXPECT_LT((*partition)[2].num_layers, 3);
  double dearest = 0;
  for (const StageLayout& stage : *partition) {
    dearest = std::max(dearest, stage.num_layers * (stage.stage == 2 ? 2.0 : 1.0));
  }
  EXPECT_EQ(dearest, 4) << "3 1/2 layers' worth a stage, in whole layers";
}

TEST(StagePartition, LayersAreCutAsTheJobSays) {
  const auto stages = StagesOfLayers(Config(8, 256, false), {1, 4, 3}, 3);
  ASSERT_TRUE(stages.ok());
  EXPECT_EQ((*stages)[1].first_layer, 1);
  EXPECT_EQ((*stages)[2].first_layer, 5);
  EXPECT_TRUE((*stages)[2].has_head());
  const std::pair<std::vector<int>, const char*> refused[] = {
      {{4, 4},
       "parallelism.stage_layers = [4, 4]: the schedule has 3 stages: give a number for each"},
      {{0, 4, 4}, "parallelism.stage_layers = [0, 4, 4]: every stage holds at least one layer"},
      {{2, 2, 2},
       "parallelism.stage_layers = [2, 2, 2]: they add up to 6, model.num_hidden_layers = 8"}};
  for (const auto& [layers, sentence] : refused) {
    const auto result = StagesOfLayers(Config(8, 256, false), layers, 3);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().message, sentence);
  }
}

TEST(StagePartition, MoreStagesThanLayersIsRefused) {
  const auto partition = PartitionStages(Config(3, 256, false), 4, 128);
  ASSERT_FALSE(partition.ok());
  EXPECT_THAT(partition.error().message, ::testing::HasSubstr("use pp 1 to 3"));
}

}  // namespace
}  // namespace troupe
