#include "actors/plan/job_orders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "actors/plan/job_plan.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

proto::JobSpec AutoJob(int pp) {
  proto::JobSpec spec;
  auto& model = *spec.mutable_model();
  model.set_hidden_size(64);
  model.set_intermediate_size(96);
  model.set_num_hidden_layers(12);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(2);
  model.set_vocab_size(100);
  model.set_max_position_embeddings(64);
  auto& batch = *spec.mutable_batch();
  batch.set_micro_batch_size(1);
  batch.set_global_batch_size(12);
  batch.set_seq_len(32);
  spec.mutable_parallelism()->set_pp(pp);
  spec.mutable_parallelism()->set_schedule("auto");
  spec.mutable_optimizer()->set_lr(0.001);
  spec.mutable_train()->set_steps(20);
  return spec;
}

ModelCosts Costs(int64_t layer_ns) {
  return {.layers = {{layer_ns, layer_ns, layer_ns}},
          .embedding = {10, 0, 10},
          .head = {layer_ns, layer_ns, 0},
          .hop_ns = layer_ns / 10};
}

TEST(JobOrders, ANamedScheduleIsItsOnlyOrder) {
  proto::JobSpec spec = AutoJob(4);
  spec.mutable_parallelism()->set_schedule("zb-v");
  const auto decided = DecideOrders(spec);
  ASSERT_TRUE(decided.ok());
  ASSERT_EQ(decided->orders.size(), 1u);
  EXPECT_EQ(decided->orders[0].schedule(), "zb-v");
  EXPECT_EQ(decided->reason, "");
}

TEST(JobOrders, AutoGivesOrdersThatShareTheirStages) {
  const ModelCosts costs = Costs(1'000'000);
  const auto decided = DecideOrders(AutoJob(4), {&costs, 1});
  ASSERT_TRUE(decided.ok()) << decided.error().message;
  ASSERT_GT(decided->orders.size(), 1u);
  EXPECT_LE(decided->orders.size(), kOrdersMax);
  const auto& layers = decided->orders[0].stage_layers();
  EXPECT_EQ(std::accumulate(layers.begin(), layers.end(), 0), 12);
  for (const proto::Parallelism& order : decided->orders) {
    EXPECT_NE(order.schedule(), "auto");
    EXPECT_EQ(std::vector<int>(order.stage_layers().begin(), order.stage_layers().end()),
              std::vector<int>(layers.begin(), layers.end()));
  }
  EXPECT_THAT(decided->reason, HasSubstr(" ms a step of 12 microbatches"));
}

TEST(JobOrders, ASlowRankGetsFewerLayers) {
  const std::vector<ModelCosts> costs = {Costs(1'000'000), Costs(3'000'000), Costs(1'000'000)};
  const auto decided = DecideOrders(AutoJob(3), costs);
  ASSERT_TRUE(decided.ok()) << decided.error().message;
  const auto plan = MakeJobPlan(AutoJob(3), decided->orders);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  std::vector<int> layers(3, 0);
  for (int stage = 0; stage < plan->train.num_stages; ++stage) {
    layers[static_cast<size_t>(plan->train.RankOf(StageId(stage)).value)] +=
        plan->stages[static_cast<size_t>(stage)].num_layers;
  }
  EXPECT_LT(layers[1], layers[0]);
  EXPECT_LT(layers[1], layers[2]);
}

TEST(JobOrders, TheLimitHolds) {
  proto::JobSpec spec = AutoJob(4);
  spec.mutable_parallelism()->set_activation_limit(1);
  const auto refused = DecideOrders(spec);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInfeasible);
  EXPECT_THAT(refused.error().message, HasSubstr("parallelism.activation_limit = 1: no schedule"));
  spec.mutable_parallelism()->set_activation_limit(3);
  EXPECT_TRUE(DecideOrders(spec).ok());
}

TEST(JobOrders, WhatAutoChoosesCannotBeGivenBesideIt) {
  proto::JobSpec spec = AutoJob(4);
  spec.mutable_parallelism()->set_weight_parts(2);
  const auto refused = DecideOrders(spec);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(
      refused.error().message,
      "parallelism.schedule = auto chooses parallelism.weight_parts itself: leave that out, or "
      "name a schedule");
}

// Slots and memory are enough for every order that a re-plan may take.
TEST(JobOrders, APlanHasRoomForEachOfItsOrders) {
  const auto decided = DecideOrders(AutoJob(4));
  ASSERT_TRUE(decided.ok()) << decided.error().message;
  const auto all = MakeJobPlan(AutoJob(4), decided->orders);
  ASSERT_TRUE(all.ok()) << all.error().message;
  EXPECT_EQ(all->others.size() + 1, decided->orders.size());
  for (const proto::Parallelism& order : decided->orders) {
    const auto alone = MakeJobPlan(AutoJob(4), {&order, 1});
    ASSERT_TRUE(alone.ok()) << alone.error().message;
    for (const Channel& channel : alone->channels) {
      EXPECT_GE(SlotsFor(all->channels, channel.from, channel.to, channel.kind), channel.slots);
    }
    for (int rank = 0; rank < 4; ++rank) {
      const auto need = alone->MemoryOf(Rank(rank), VectorIsa::kAvx2);
      const auto have = all->MemoryOf(Rank(rank), VectorIsa::kAvx2);
      for (size_t kind = 0; kind < need.size(); ++kind) EXPECT_GE(have[kind], need[kind]);
    }
  }
}

TEST(JobOrders, WithoutMeasurementsAPlanGoesByOperations) {
  const auto plan = MakeJobPlan(AutoJob(4));
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_NE(plan->train.name, "auto");
  EXPECT_NE(plan->reason, "");
}

}  // namespace
}  // namespace troupe
