// The specs of the units agree with themselves, and a kind of layer that only this file knows is in
// the table, the memory model, the kernels' memory, the cost model and the partition.
#include "actors/plan/layer_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "actors/plan/cost_model.h"
#include "actors/plan/kernel_memory.h"
#include "actors/plan/memory_model.h"
#include "actors/plan/model_costs.h"
#include "actors/plan/parameter_table.h"
#include "actors/plan/stage_partition.h"
#include "actors/schedule/generators.h"
#include "tests/support/biased_layer.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kHidden = 64, kInner = 96, kTokens = 2 * 32;

ModelConfig Config() {
  return {.hidden_size = kHidden,
          .intermediate_size = kInner,
          .num_hidden_layers = 4,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 16,
          .vocab_size = 100};
}

// ---- a layer with biases, and nothing in the product that knows it -----------------------------

constexpr int64_t kBiasedElements = 2 * kHidden * kInner + kInner + 2 * kHidden;
LayerSpec BiasedSpec() { return testing::BiasedLayerSpec(Config()); }
// Layers 1 and 3 are biased ones.
ModelSpec MixedModel() { return testing::MixedModel(Config()); }

StageShape ShapeOf(const ModelSpec& model, int first_layer, int num_layers) {
  StageShape shape{.model = model};
  shape.layout = {
      .stage = 1, .num_stages = 3, .first_layer = first_layer, .num_layers = num_layers};
  shape.batch = {
      .micro_batch_size = 2, .global_batch_size = 8, .seq_len = 32, .num_microbatches = 4};
  return shape;
}

int64_t At(const MemoryPrediction& prediction, MemoryTag tag) {
  return prediction[static_cast<size_t>(tag)];
}

TEST(ABiasedLayer, StandsInTheParameterTable) {
  const ParameterTable table(MixedModel());
  const ParameterTable alike{ModelSpec(Config())};
  const int bias = table.Find("model.layers.1.fc.bias");
  ASSERT_GE(bias, 0);
  EXPECT_EQ(table[bias].shape(), (std::vector<int64_t>{kInner}));
  EXPECT_EQ(table[bias].shard_axis, 0);
  EXPECT_FALSE(table[bias].decay);
  EXPECT_EQ(table[bias].layer, 1);
  EXPECT_EQ(table.Find("model.layers.1.mlp.up_proj.weight"), -1);
  EXPECT_GE(table.Find("model.layers.2.mlp.up_proj.weight"), 0);
  const int64_t decoder = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 2 * 64;
  EXPECT_EQ(alike.num_elements() - table.num_elements(), 2 * (decoder - kBiasedElements));
}

TEST(ABiasedLayer, IsHeldByItsStage) {
  const ModelSpec model = MixedModel();
  const ParameterTable table(model);
  const StageLayout layout{.stage = 1, .num_stages = 3, .first_layer = 1, .num_layers = 1};
  EXPECT_THAT(UnitsOf(model, layout), ElementsAre(2));
  std::vector<int> expected;
  for (const char* name : {"norm.weight", "fc.weight", "fc.bias", "proj.weight", "proj.bias"}) {
    expected.push_back(table.Find(std::string("model.layers.1.") + name));
  }
  EXPECT_EQ(ParametersOf(table, layout), expected);
  EXPECT_EQ(OwnedParametersOf(table, layout), expected);
  EXPECT_EQ(GradientElements(table, layout), kBiasedElements);
}

TEST(ABiasedLayer, IsInTheMemoryModel) {
  const ModelSpec model = MixedModel();
  const ParameterTable table(model);
  StageShape shape = ShapeOf(model, 1, 1);
  MemoryPrediction bytes = PredictMemory(table, {.shape = shape, .peak_microbatches = 3});
  EXPECT_EQ(At(bytes, MemoryTag::kParams), 4 * kBiasedElements);
  EXPECT_EQ(At(bytes, MemoryTag::kOptimizer), 8 * kBiasedElements);
  const int64_t stash = kTokens * 4 * (2 * kHidden + 1 + kInner);
  EXPECT_EQ(At(bytes, MemoryTag::kActivations), 3 * stash);
  shape.halves = true;
  bytes = PredictMemory(table, {.shape = shape});
  EXPECT_EQ(At(bytes, MemoryTag::kActivations), stash + kTokens * 4 * (kHidden + kInner));
  EXPECT_EQ(WorkspaceLayoutOf(shape, 0).num_bytes(1), kTokens * 4 * (3 * kHidden + kInner));
}

// One place a name, as large as the largest: here the biased layer's dout.
TEST(ABiasedLayer, SharesTheWorkspaceWithOtherLayers) {
  const ModelSpec model = MixedModel();
  const WorkspaceLayout decoder = WorkspaceLayoutOf(ShapeOf(model, 0, 1), 0);
  const WorkspaceLayout both = WorkspaceLayoutOf(ShapeOf(model, 0, 2), 0);
  EXPECT_EQ(both.action_bytes - decoder.action_bytes, kTokens * 4 * (kInner - kHidden));
  const UnitPlaces& first = both.units[0];
  const UnitPlaces& second = both.units[1];
  EXPECT_EQ(first.Of("dout").offset, second.Of("dout").offset);
  EXPECT_EQ(first.Of("dout").columns, kHidden);
  EXPECT_EQ(second.Of("dout").columns, kInner);
  EXPECT_TRUE(both.constants[0].Has("rotary"));
  EXPECT_FALSE(both.constants[1].Has("rotary"));
}

TEST(ABiasedLayer, HasItsProductsPacked) {
  const StageShape shape = ShapeOf(MixedModel(), 1, 1);
  EXPECT_EQ(PackedWeightsBytes(shape, VectorIsa::kAvx2), 2 * kHidden * kInner * 4);
  // No attention: what the products need.
  EXPECT_EQ(KernelScratchBytes(shape, VectorIsa::kAvx2), kTokens * (kHidden + kInner) * 4);
}

TEST(ABiasedLayer, CostsWhatItsProductsCost) {
  const ModelSpec model = MixedModel();
  const TokenFlops biased = UnitFlops(BiasedSpec(), 32);
  EXPECT_EQ(biased.forward, 2.0 * 2 * kHidden * kInner);
  EXPECT_EQ(biased.total(), 3 * biased.forward);
  EXPECT_EQ(ModelFlops(model, 32).total(),
            2 * biased.total() + 2 * UnitFlops(DecoderLayerSpec(Config()), 32).total() +
                UnitFlops(model.embedding, 32).total() + UnitFlops(model.head, 32).total());
  const ModelCosts costs = CostsByFlops(
      model, {.micro_batch_size = 2, .global_batch_size = 8, .seq_len = 32, .num_microbatches = 4});
  ASSERT_EQ(costs.layers.size(), 2u);
  EXPECT_NEAR(static_cast<double>(costs.layers[1].forward_ns), biased.forward * kTokens / 1000, 1);
  EXPECT_EQ(FromProto(ToProto(costs)).layers[1].forward_ns, costs.layers[1].forward_ns);
  const auto schedule = Generate({.name = "1f1b", .num_ranks = 2, .num_microbatches = 4});
  ASSERT_TRUE(schedule.ok());
  const std::vector<StageLayout> stages = {{0, 2, 0, 3}, {1, 2, 3, 1}};  // layers 0 to 2, and 3
  const CostModel of_stages = StageCostsOf(*schedule, model, stages, {&costs, 1});
  EXPECT_EQ(
      of_stages.stages[0].forward_ns,
      2 * costs.layers[0].forward_ns + costs.layers[1].forward_ns + costs.embedding.forward_ns);
}

TEST(ABiasedLayer, WeighsInThePartition) {
  ModelSpec model = MixedModel();
  model.layers = {1, 1, 1, 1, 1, 1, 0, 0};
  const auto stages =
      PartitionStages(model, {.layers = {{3, 1}, {3, 1}}, .embedding = 0, .head = 0});
  ASSERT_TRUE(stages.ok());
  EXPECT_EQ((*stages)[0].num_layers, 6);
  EXPECT_EQ((*stages)[1].num_layers, 2);
}

// ---- Llama's own specs -------------------------------------------------------------------------

TEST(LayerSpec, ProductsAreMatricesOfNeighbouringParameters) {
  for (const LayerSpec& spec :
       {EmbeddingSpec(Config()), DecoderLayerSpec(Config()), HeadSpec(Config()), BiasedSpec()}) {
    std::set<std::string_view> names;
    for (const LayerTensor& tensor : spec.tensors) EXPECT_TRUE(names.insert(tensor.name).second);
    for (const LayerProduct& product : spec.products) {
      int64_t rows = 0;
      for (int i = 0; i < product.num_parameters; ++i) {
        const auto& parameter =
            spec.parameters.at(static_cast<size_t>(product.first_parameter + i));
        EXPECT_EQ(parameter.columns, product.in) << product.name;
        EXPECT_EQ(parameter.shard_axis, spec.CutOf(product) == ProductCut::kColumn ? 0 : 1);
        rows += parameter.rows;
      }
      EXPECT_EQ(rows, product.out) << product.name;
    }
  }
}

TEST(LayerSpec, TensorParallelCutsColumnsThenRows) {
  const LayerSpec layer = DecoderLayerSpec(Config());
  EXPECT_EQ(layer.CutOf(layer.Product("qkv")), ProductCut::kColumn);
  EXPECT_EQ(layer.CutOf(layer.Product("out")), ProductCut::kRow);
  EXPECT_EQ(layer.CutOf(layer.Product("gate_up")), ProductCut::kColumn);
  EXPECT_EQ(layer.CutOf(layer.Product("down")), ProductCut::kRow);
}

TEST(LayerSpec, ATiedHeadNamesTheEmbedding) {
  ModelConfig config = Config();
  EXPECT_EQ(HeadSpec(config).parameters.back().name, "lm_head.weight");
  config.tie_word_embeddings = true;
  EXPECT_EQ(HeadSpec(config).parameters.back().name, EmbeddingSpec(config).parameters[0].name);
}

TEST(LayerSpec, UnitsRunFromTheEmbeddingToTheHead) {
  const ModelSpec model = MixedModel();
  EXPECT_EQ(model.num_units(), 6);
  EXPECT_EQ(model.unit(0).other_flops.total(), static_cast<double>(kHidden));
  EXPECT_EQ(model.unit(model.layer_unit(1)).products.front().name, "fc");
  EXPECT_EQ(model.LayerOf(model.layer_unit(3)), 3);
  EXPECT_EQ(model.LayerOf(model.head_unit()), -1);
  EXPECT_EQ(model.unit(model.head_unit()).products.front().out, 100);
}

}  // namespace
}  // namespace troupe
