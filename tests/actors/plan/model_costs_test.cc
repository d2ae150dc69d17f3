#include "actors/plan/model_costs.h"

#include <gtest/gtest.h>

#include "actors/plan/cost_model.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

ModelCosts Costs(int64_t f, int64_t b, int64_t w) {
  return {.layers = {{f, b, w}}, .embedding = {1, 2, 3}, .head = {4, 5, 6}, .hop_ns = 7};
}

TEST(ModelCosts, TheMessageIsTheSame) {
  const ModelCosts costs = Costs(10, 20, 30);
  const ModelCosts back = FromProto(ToProto(costs));
  EXPECT_EQ(back.layers.at(0).backward_weight_ns, 30);
  EXPECT_EQ(back.embedding.WorkNs(), 6);
  EXPECT_EQ(back.head.backward_input_ns, 5);
  EXPECT_EQ(back.layers.at(0).WholeBackwardNs(), 50);
  EXPECT_EQ(back.hop_ns, 7);
}

TEST(ModelCosts, StagesAddUpTheirParts) {
  const auto schedule = Generate({.name = "zb-v", .num_ranks = 2, .num_microbatches = 4});
  ASSERT_TRUE(schedule.ok());
  const ModelSpec model(ModelConfig{.num_hidden_layers = 7});
  const std::vector<StageLayout> stages = {{0, 4, 0, 2}, {1, 4, 2, 1}, {2, 4, 3, 1}, {3, 4, 4, 3}};
  const std::vector<ModelCosts> ranks = {Costs(10, 20, 30), Costs(100, 200, 300)};
  const CostModel costs = StageCostsOf(*schedule, model, stages, ranks);
  ASSERT_EQ(costs.stages.size(), 4u);
  EXPECT_EQ(costs.stages[0].forward_ns, 2 * 10 + 1) << "rank 0, with the embedding";
  EXPECT_EQ(costs.stages[1].backward_input_ns, 200) << "rank 1";
  EXPECT_EQ(costs.stages[2].backward_weight_ns, 300) << "rank 1 again: a V";
  EXPECT_EQ(costs.stages[3].forward_ns, 3 * 10 + 4) << "rank 0, with the head";
  EXPECT_EQ(costs.link_latency_ns, 7);
  const StageWeights weights = WeightsOf(*schedule, model, ranks);
  EXPECT_EQ(weights.layers, (std::vector<std::vector<double>>{{60}, {600}, {600}, {60}}));
  EXPECT_EQ(weights.embedding, 6);
  EXPECT_EQ(weights.head, 15);
}

// Measuring is disturbed upwards only.
TEST(ModelCosts, RanksOnLikeHardwareTakeTheLeast) {
  const std::vector<ModelCosts> told = {Costs(10, 50, 30), Costs(40, 20, 30), Costs(90, 90, 90)};
  const std::vector<std::string> hardware = {"a", "a", "b"};
  const auto alike = LeastOfAlike(told, hardware);
  ASSERT_EQ(alike.size(), 3u);
  for (const size_t rank : {0u, 1u}) {
    EXPECT_EQ(alike[rank].layers.at(0).forward_ns, 10);
    EXPECT_EQ(alike[rank].layers.at(0).backward_input_ns, 20);
  }
  EXPECT_EQ(alike[2].layers.at(0).WorkNs(), 270) << "other hardware stays by itself";
}

// Two pipelines of two: ranks 0 and 1 stand at the first place, 2 and 3 at the second.
TEST(ModelCosts, APlaceOfThePipelineTakesWhatItsSlowestRankTakes) {
  proto::Parallelism parallelism;
  parallelism.set_dp(2);
  parallelism.set_pp(2);
  const Mesh mesh = *Mesh::FromSpec(parallelism);
  const std::vector<ModelCosts> ranks = {Costs(10, 50, 30), Costs(40, 20, 30), Costs(1, 1, 1),
                                         Costs(1, 2, 1)};
  const auto along = CostsAlongPipeline(mesh, ranks);
  ASSERT_EQ(along.size(), 2u);
  EXPECT_EQ(along[0].layers.at(0).WorkNs(), 40 + 50 + 30);
  EXPECT_EQ(along[1].layers.at(0).WorkNs(), 1 + 2 + 1);
  EXPECT_EQ(CostsAlongPipeline(mesh, {ranks.data(), 1}).size(), 1u) << "it stands for all";
}

TEST(ModelCosts, ScalingLeavesTheHop) {
  const ModelCosts scaled = Scaled(Costs(10, 20, 30), 1.5);
  EXPECT_EQ(scaled.layers.at(0).WorkNs(), 90);
  EXPECT_EQ(scaled.layers.at(0).WholeBackwardNs(), 75);
  EXPECT_EQ(scaled.hop_ns, 7);
}

TEST(ModelCosts, OperationsAreThoseOfTheCostModel) {
  const ModelConfig config{.hidden_size = 64,
                           .intermediate_size = 128,
                           .num_hidden_layers = 4,
                           .num_attention_heads = 4,
                           .num_key_value_heads = 2,
                           .head_dim = 16,
                           .vocab_size = 256};
  const BatchArithmetic batch{.micro_batch_size = 2, .global_batch_size = 8, .seq_len = 32};
  const ModelCosts costs = CostsByFlops(config, batch);
  EXPECT_NEAR(static_cast<double>(costs.layers.at(0).WorkNs()),
              UnitFlops(DecoderLayerSpec(config), 32).total() * 64 / 1000, 3);
  EXPECT_NEAR(static_cast<double>(costs.head.WorkNs()),
              UnitFlops(HeadSpec(config), 32).total() * 64 / 1000, 3);
}

}  // namespace
}  // namespace troupe
