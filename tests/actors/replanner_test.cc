#include "actors/replanner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>

namespace troupe {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMs = 1'000'000;

proto::JobSpec Job() {
  proto::JobSpec spec;
  auto& model = *spec.mutable_model();
  model.set_hidden_size(64);
  model.set_intermediate_size(96);
  model.set_num_hidden_layers(16);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(2);
  model.set_vocab_size(100);
  model.set_max_position_embeddings(64);
  auto& batch = *spec.mutable_batch();
  batch.set_micro_batch_size(1);
  batch.set_global_batch_size(12);
  batch.set_seq_len(32);
  spec.mutable_parallelism()->set_pp(4);
  spec.mutable_optimizer()->set_lr(0.001);
  spec.mutable_train()->set_steps(20);
  return spec;
}

proto::Parallelism Order(const std::string& schedule, const std::string& executor,
                         int weight_parts = 1) {
  proto::Parallelism order;
  order.set_pp(4);
  order.set_schedule(schedule);
  order.set_executor(executor);
  order.set_weight_parts(weight_parts);
  return order;
}

JobPlan Plan(const std::vector<proto::Parallelism>& orders) {
  auto plan = MakeJobPlan(Job(), orders);
  CHECK(plan.ok(), "{}", plan.error().message);
  return *std::move(plan);
}

ModelCosts Costs() {
  return {.layers = {{kMs, kMs, kMs}}, .embedding = {}, .head = {}, .hop_ns = 0};
}

// What every rank votes where each stage takes `of(stage)`.
std::vector<proto::Vote> Votes(const JobPlan& plan, const std::function<StageCost(int)>& of) {
  std::vector<proto::Vote> votes;
  for (int rank = 0; rank < plan.train.num_ranks; ++rank) {
    proto::Vote& vote = votes.emplace_back();
    vote.set_rank(rank);
    for (const StageId stage : plan.StagesOf(Rank(rank))) {
      const StageCost cost = of(stage.value);
      auto* times = vote.add_stage_times();
      times->set_stage(stage.value);
      times->set_forward_ns(cost.forward_ns);
      if (cost.backward_ns > 0) {
        times->set_backward_ns(cost.backward_ns);
      } else {
        times->set_backward_input_ns(cost.backward_input_ns);
        times->set_backward_weight_ns(cost.backward_weight_ns);
      }
    }
  }
  return votes;
}

StageCost Layers(const JobPlan& plan, int stage, double factor = 1) {
  const auto ns = static_cast<int64_t>(factor * static_cast<double>(kMs) *
                                       plan.stages[static_cast<size_t>(stage)].num_layers);
  return {ns, ns, ns};
}

TEST(Replanner, WhatIsSlowerAlikeChangesNothing) {
  const JobPlan plan = Plan({Order("zb-v", "strict"), Order("zb-v", "guided", 4)});
  Replanner replanner(plan, {Costs()});
  for (int step = 0; step < 20; ++step) {
    replanner.AddStep(Votes(plan, [&](int stage) { return Layers(plan, stage, 3); }));
    EXPECT_FALSE(replanner.ReconsiderOrder());
  }
  EXPECT_EQ(replanner.order(), 0u);
}

// 1F1B's halves become dear on one stage; the order that fills gaps with weight gradients gains.
TEST(Replanner, ADriftThatLastsBringsTheFasterOrder) {
  const JobPlan plan = Plan({Order("1f1b", "strict"), Order("zb-h1", "guided", 4)});
  Replanner replanner(plan, {Costs()});
  const auto slow_second = [&](int stage) { return Layers(plan, stage, stage == 1 ? 1.6 : 1); };
  for (int step = 0; step < Replanner::kPatience - 1; ++step) {
    replanner.AddStep(Votes(plan, slow_second));
    EXPECT_FALSE(replanner.ReconsiderOrder()) << "patience";
  }
  replanner.AddStep(Votes(plan, slow_second));
  const auto changed = replanner.ReconsiderOrder();
  ASSERT_TRUE(changed);
  EXPECT_EQ(changed->order, 1u);
  EXPECT_EQ(replanner.order(), 1u);
  EXPECT_THAT(changed->reason, HasSubstr("schedule auto: zb-h1 (guided) in place of 1f1b (strict), "
                                         "since times have drifted: "));
  // Settled: the same times do not bring it up again.
  for (int step = 0; step < 10; ++step) {
    replanner.AddStep(Votes(plan, slow_second));
    EXPECT_FALSE(replanner.ReconsiderOrder());
  }
}

TEST(Replanner, AHiccupIsNoDrift) {
  const JobPlan plan = Plan({Order("1f1b", "strict"), Order("zb-h1", "guided", 4)});
  Replanner replanner(plan, {Costs()});
  for (int step = 0; step < 30; ++step) {
    const bool hiccup = step % 10 == 5;
    replanner.AddStep(
        Votes(plan, [&](int stage) { return Layers(plan, stage, hiccup && stage == 1 ? 2 : 1); }));
    EXPECT_FALSE(replanner.ReconsiderOrder()) << step;
  }
}

TEST(Replanner, AnOrderThatRunsAloneStays) {
  const JobPlan plan = Plan({Order("1f1b", "strict")});
  Replanner replanner(plan, {Costs()});
  for (int step = 0; step < 10; ++step) {
    replanner.AddStep(
        Votes(plan, [&](int stage) { return Layers(plan, stage, stage == 1 ? 5 : 1); }));
    EXPECT_FALSE(replanner.ReconsiderOrder());
  }
}

// Whole backwards say nothing of their halves, which then keep their proportion.
TEST(Replanner, ARankThatStaysSlowLosesLayers) {
  for (const bool whole : {false, true}) {
    const JobPlan plan = Plan({Order(whole ? "1f1b" : "zb-h1", "strict")});
    Replanner replanner(plan, {Costs()});
    const auto slow_third = [&](int stage) {
      StageCost cost = Layers(plan, stage, stage == 2 ? 2 : 1);
      if (whole) cost.backward_ns = cost.backward_input_ns + cost.backward_weight_ns;
      return cost;
    };
    for (int step = 1; step < Replanner::kStepsSlow; ++step) {
      replanner.AddStep(Votes(plan, slow_third));
      EXPECT_FALSE(replanner.ReconsiderLayers(1000)) << "too early to tell";
    }
    replanner.AddStep(Votes(plan, slow_third));
    EXPECT_FALSE(replanner.ReconsiderLayers(1)) << "one step gains less than the move takes";
    const auto moved = replanner.ReconsiderLayers(1000);
    ASSERT_TRUE(moved);
    EXPECT_EQ(std::accumulate(moved->stage_layers.begin(), moved->stage_layers.end(), 0), 16);
    EXPECT_LT(moved->stage_layers[2], 4);
    EXPECT_THAT(moved->reason,
                HasSubstr("rank 2 takes 2.00 times what the others take for the same layers: [4, "
                          "4, 4, 4] layers a stage become ["));
  }
}

TEST(Replanner, EqualRanksKeepTheirLayers) {
  const JobPlan plan = Plan({Order("zb-v", "strict")});
  Replanner replanner(plan, {Costs()});
  for (int step = 0; step < 30; ++step) {
    // A little noise, and everything twice as slow as measured.
    replanner.AddStep(Votes(
        plan, [&](int stage) { return Layers(plan, stage, 2 + 0.1 * ((stage + step) % 3)); }));
    EXPECT_FALSE(replanner.ReconsiderLayers(1'000'000));
  }
}

TEST(Replanner, SlowForAFewStepsIsNotSlow) {
  const JobPlan plan = Plan({Order("zb-h1", "strict")});
  Replanner replanner(plan, {Costs()});
  for (int step = 0; step < 60; ++step) {
    replanner.AddStep(Votes(
        plan, [&](int stage) { return Layers(plan, stage, stage == 2 && step % 12 < 3 ? 3 : 1); }));
    EXPECT_FALSE(replanner.ReconsiderLayers(1'000'000)) << step;
  }
}

// Whole backwards cost less than their halves together; an order of halves is judged by that.
TEST(Replanner, TheOtherKindOfBackwardKeepsItsProportion) {
  const JobPlan plan = Plan({Order("zb-h1", "strict"), Order("1f1b", "strict")});
  ModelCosts costs = Costs();
  costs.layers.at(0).backward_ns = kMs;  // half of what its halves take
  Replanner replanner(plan, {costs});
  std::optional<Replanner::NewOrder> changed;
  for (int step = 0; step < 5 && !changed; ++step) {
    replanner.AddStep(
        Votes(plan, [&](int stage) { return Layers(plan, stage, stage == 1 ? 1.6 : 1); }));
    changed = replanner.ReconsiderOrder();
  }
  ASSERT_TRUE(changed);
  EXPECT_EQ(changed->order, 1u) << "whole backwards are that much faster";
}

}  // namespace
}  // namespace troupe
