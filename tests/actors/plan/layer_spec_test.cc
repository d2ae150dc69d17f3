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

// ---- a layer with biases, and nothing else that knows it ---------------------------------------

LayerSpec BiasedSpec() {
  const auto bias = [](std::string name, int64_t channels, int shard_axis) {
    return ParameterSpec{.name = std::move(name),
                         .rows = channels,
                         .columns = 1,
                         .one_dimensional = true,
                         .decay = false,
                         .shard_axis = shard_axis};
  };
  LayerSpec spec;
  spec.parameters = {{.name = "fc.weight", .rows = kInner, .columns = kHidden, .shard_axis = 0},
                     bias("fc.bias", kInner, 0),
                     {.name = "proj.weight", .rows = kHidden, .columns = kInner, .shard_axis = 1},
                     bias("proj.bias", kHidden, -1)};
  spec.products = {{"fc", kHidden, kInner, 0, 1}, {"proj", kInner, kHidden, 2, 1}};
  spec.tensors = {{.name = "x", .columns = kHidden},
                  {.name = "inner", .columns = kInner},
                  {.name = "dy", .columns = kHidden, .life = TensorLife::kHalf},
                  {.name = "dinner", .columns = kInner, .life = TensorLife::kHalf},
                  {.name = "delta", .columns = 3 * kHidden, .life = TensorLife::kWorkspace}};
  return spec;
}
constexpr int64_t kBiasedElements = 2 * kHidden * kInner + kInner + kHidden;

// Llama's first and last layer, two biased ones between.
ModelSpec MixedModel() {
  ModelSpec model(Config());
  model.layer_kinds.push_back(BiasedSpec());
  model.layers = {0, 1, 1, 0};
  return model;
}

StageShape ShapeOf(const ModelSpec& model, int first_layer, int num_layers) {
  StageShape shape{.model = model};
  shape.layout = {
      .stage = 1, .num_stages = 3, .first_layer = first_layer, .num_layers = num_layers};
  shape.batch = {
      .micro_batch_size = 2, .global_batch_size = 8, .seq_len = 32, .num_microbatches = 4};
  return shape;
}

int64_t At(const MemoryPrediction& prediction, MemoryKind kind) {
  return prediction[static_cast<size_t>(kind)];
}

TEST(ABiasedLayer, StandsInTheParameterTable) {
  const ParameterTable table(MixedModel());
  const ParameterTable alike{ModelSpec(Config())};
  const int bias = table.Find("model.layers.2.fc.bias");
  ASSERT_GE(bias, 0);
  EXPECT_EQ(table[bias].shape(), (std::vector<int64_t>{kInner}));
  EXPECT_EQ(table[bias].shard_axis, 0);
  EXPECT_FALSE(table[bias].decay);
  EXPECT_EQ(table[bias].layer, 2);
  EXPECT_EQ(table.Find("model.layers.2.mlp.up_proj.weight"), -1);
  EXPECT_GE(table.Find("model.layers.3.mlp.up_proj.weight"), 0);
  const int64_t layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 2 * 64;
  EXPECT_EQ(alike.num_elements() - table.num_elements(), 2 * (layer - kBiasedElements));
}

TEST(ABiasedLayer, IsHeldByItsStage) {
  const ModelSpec model = MixedModel();
  const ParameterTable table(model);
  const StageLayout layout{.stage = 1, .num_stages = 3, .first_layer = 2, .num_layers = 1};
  EXPECT_THAT(UnitsOf(model, layout), ElementsAre(3));
  EXPECT_THAT(ParametersOf(table, layout), ElementsAre(table.Find("model.layers.2.fc.weight"),
                                                       table.Find("model.layers.2.fc.bias"),
                                                       table.Find("model.layers.2.proj.weight"),
                                                       table.Find("model.layers.2.proj.bias")));
  EXPECT_EQ(GradientElements(table, layout), kBiasedElements);
}

TEST(ABiasedLayer, IsInTheMemoryModel) {
  const ModelSpec model = MixedModel();
  const ParameterTable table(model);
  StageShape shape = ShapeOf(model, 1, 2);
  MemoryPrediction bytes = PredictMemory(table, {.shape = shape, .peak_microbatches = 3});
  EXPECT_EQ(At(bytes, MemoryKind::kParams), 4 * 2 * kBiasedElements);
  EXPECT_EQ(At(bytes, MemoryKind::kOptimizer), 8 * 2 * kBiasedElements);
  const int64_t stash = 2 * kTokens * 4 * (kHidden + kInner);
  EXPECT_EQ(At(bytes, MemoryKind::kActivations), 3 * stash);
  shape.halves = true;
  bytes = PredictMemory(table, {.shape = shape});
  EXPECT_EQ(At(bytes, MemoryKind::kActivations), 2 * stash);
  // Alone it needs what it names; the two share it.
  EXPECT_EQ(WorkspaceLayoutOf(shape, 0).num_bytes, kTokens * 4 * (4 * kHidden + kInner));
}

// One place a name, as large as the largest: here the biased layer's delta.
TEST(ABiasedLayer, SharesTheWorkspaceWithOtherLayers) {
  const ModelSpec model = MixedModel();
  const WorkspaceLayout llama = WorkspaceLayoutOf(ShapeOf(model, 0, 1), 0);
  const WorkspaceLayout both = WorkspaceLayoutOf(ShapeOf(model, 0, 2), 0);
  EXPECT_EQ(both.num_bytes - llama.num_bytes, kTokens * 4 * (2 * kHidden + kInner))
      << "two thirds of delta, and dinner";
  EXPECT_EQ(both.units[0].Of("delta").offset, both.units[1].Of("delta").offset);
  EXPECT_EQ(both.units[0].Of("delta").columns, kHidden);
  EXPECT_EQ(both.units[1].Of("delta").columns, 3 * kHidden);
  EXPECT_FALSE(both.units[0].Has("dinner"));
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
  const std::vector<StageLayout> stages = {{0, 2, 0, 3}, {1, 2, 3, 1}};
  const CostModel of_stages = StageCostsOf(*schedule, model, stages, {&costs, 1});
  EXPECT_EQ(of_stages.stages[0].forward_ns,
            costs.layers[0].forward_ns + 2 * costs.layers[1].forward_ns);
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
