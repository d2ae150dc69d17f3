#include "actors/plan/communication_volume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/plan/job_plan.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Case {
  int pp = 1;
  int dp = 1;
  bool tied = false;
  std::string schedule = "1f1b";
};

JobPlan PlanOf(const Case& c) {
  proto::JobSpec spec;
  auto& model = *spec.mutable_model();
  model.set_hidden_size(64);
  model.set_intermediate_size(96);
  model.set_num_hidden_layers(8);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(2);
  model.set_vocab_size(100);
  model.set_max_position_embeddings(64);
  model.set_tie_word_embeddings(c.tied);
  auto& batch = *spec.mutable_batch();
  batch.set_micro_batch_size(2);
  batch.set_global_batch_size(24);
  batch.set_seq_len(32);
  if (c.schedule == "dualpipe") batch.set_gradient_groups(2);
  spec.mutable_parallelism()->set_pp(c.pp);
  spec.mutable_parallelism()->set_dp(c.dp);
  spec.mutable_parallelism()->set_schedule(c.schedule);
  spec.mutable_optimizer()->set_lr(0.001);
  spec.mutable_train()->set_steps(20);
  auto plan = MakeJobPlan(spec);
  CHECK(plan.ok(), "{}", plan.error().message);
  return *std::move(plan);
}

constexpr int64_t kBoundary = 2 * 32 * 64 * 4;
constexpr int64_t kEmbedding = 100 * 64 * 4;

TEST(CommunicationVolume, OneWorkerSendsNothing) {
  EXPECT_THAT(CommunicationOf(PlanOf({.tied = true}), Rank(0)), IsEmpty());
}

TEST(CommunicationVolume, APipelineSendsABoundaryAMicrobatch) {
  const JobPlan plan = PlanOf({.pp = 3});
  const CommunicationVolume activations{Axis::kPp, "activation", 12, 12 * kBoundary};
  const CommunicationVolume gradients{Axis::kPp, "gradient", 12, 12 * kBoundary};
  EXPECT_THAT(CommunicationOf(plan, Rank(0)), ElementsAre(activations));
  EXPECT_THAT(CommunicationOf(plan, Rank(1)), ElementsAre(activations, gradients));
  EXPECT_THAT(CommunicationOf(plan, Rank(2)), ElementsAre(gradients));
}

TEST(CommunicationVolume, WhatStaysOnARankIsNotSent) {
  const JobPlan loop = PlanOf({.pp = 2, .schedule = "interleaved-1f1b"});
  EXPECT_THAT(CommunicationOf(loop, Rank(0)),
              ElementsAre(CommunicationVolume{Axis::kPp, "activation", 24, 24 * kBoundary},
                          CommunicationVolume{Axis::kPp, "gradient", 12, 12 * kBoundary}));
  const JobPlan fold = PlanOf({.pp = 2, .schedule = "zb-v"});
  EXPECT_THAT(CommunicationOf(fold, Rank(1)),
              ElementsAre(CommunicationVolume{Axis::kPp, "activation", 12, 12 * kBoundary},
                          CommunicationVolume{Axis::kPp, "gradient", 12, 12 * kBoundary}))
      << "the fold lies on rank 1";
}

TEST(CommunicationVolume, TheTiedGradientIsTheEndsOfAPipeline) {
  const JobPlan plan = PlanOf({.pp = 3, .tied = true});
  const CommunicationVolume tied{Axis::kPp, "all-reduce", 1, kEmbedding};
  EXPECT_EQ(CommunicationOf(plan, Rank(0)).back(), tied);
  EXPECT_EQ(CommunicationOf(plan, Rank(1)).back().operation, "gradient");
  EXPECT_EQ(CommunicationOf(plan, Rank(2)).back(), tied);
}

// 2 S (N - 1) of all together, to the byte; who sums more sends more.
TEST(CommunicationVolume, DataParallelRanksSendTheirStagesGradients) {
  for (const int dp : {2, 3, 4, 6}) {
    for (const int pp : {1, 2}) {
      const JobPlan plan = PlanOf({.pp = pp, .dp = dp});
      int64_t sent = 0;
      for (int rank = 0; rank < pp * dp; ++rank) {
        const CommunicationVolume row = CommunicationOf(plan, Rank(rank)).back();
        EXPECT_EQ(row.axis, Axis::kDp);
        EXPECT_EQ(row.operation, "all-reduce");
        EXPECT_EQ(row.count, 1);
        sent += row.bytes;
      }
      EXPECT_EQ(sent, 2 * 4 * plan.table.num_elements() * (dp - 1)) << "pp " << pp << " dp " << dp;
    }
  }
}

TEST(CommunicationVolume, TwoDirectionsShareEveryStage) {
  const JobPlan plan = PlanOf({.pp = 2, .schedule = "dualpipe"});
  const CommunicationVolume shared = CommunicationOf(plan, Rank(0)).back();
  EXPECT_EQ(shared.axis, Axis::kPp);
  EXPECT_EQ(shared.operation, "all-reduce");
  EXPECT_EQ(shared.count, 2) << "both stages of the rank";
  EXPECT_EQ(shared.bytes, 4 * plan.table.num_elements());
}

TEST(CommunicationVolume, RowsOfOneOperationAddUp) {
  std::vector<CommunicationVolume> rows;
  AddVolume(rows, {Axis::kPp, "all-reduce", 1, 5});
  AddVolume(rows, {Axis::kDp, "all-reduce", 1, 7});
  AddVolume(rows, {Axis::kPp, "all-reduce", 2, 1});
  AddVolume(rows, {Axis::kPp, "gradient", 0, 0});
  EXPECT_THAT(rows, ElementsAre(CommunicationVolume{Axis::kPp, "all-reduce", 3, 6},
                                CommunicationVolume{Axis::kDp, "all-reduce", 1, 7}));
}

}  // namespace
}  // namespace troupe
