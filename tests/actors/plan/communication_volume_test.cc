#include "actors/plan/communication_volume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "actors/plan/gradient_piece.h"
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
  int zero_stage = 0;
  std::string grad_reduce{};  // empty: the stage's own
  bool reshard_after_forward = true;
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
  spec.mutable_parallelism()->set_zero_stage(c.zero_stage);
  spec.mutable_parallelism()->set_reshard_after_forward(c.reshard_after_forward);
  if (!c.grad_reduce.empty()) spec.mutable_parallelism()->set_grad_reduce(c.grad_reduce);
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

// Bytes along dp, of all ranks together, by operation.
std::map<std::string, int64_t> SentAlongDp(const JobPlan& plan) {
  std::map<std::string, int64_t> sent;
  for (int rank = 0; rank < plan.mesh.num_ranks(); ++rank) {
    for (const CommunicationVolume& row : CommunicationOf(plan, Rank(rank))) {
      if (row.axis == Axis::kDp) sent[std::string(row.operation)] += row.bytes;
    }
  }
  return sent;
}

// In bytes of the weights, Psi, times N - 1 for all ranks, with k microbatches a rank: 2 for
// ZeRO-1, k + 1 for ZeRO-2, 3 k for ZeRO-3, 2 k without resharding, 2 k + 1 with gradients reduced
// once. With resharding the embedding, which no backward reads, is gathered once for each
// microbatch instead of twice.
TEST(CommunicationVolume, OfEachZeroStageIsItsFormula) {
  for (const int dp : {2, 3, 4}) {
    const int k = 12 / dp;
    const auto sent = [&](int stage, const std::string& reduce, bool reshard) {
      return SentAlongDp(PlanOf({.dp = dp,
                                 .zero_stage = stage,
                                 .grad_reduce = reduce,
                                 .reshard_after_forward = reshard}));
    };
    const int64_t psi = 4 * PlanOf({}).table.num_elements() * (dp - 1);
    const int64_t embedding = kEmbedding * (dp - 1);
    using Sent = std::map<std::string, int64_t>;
    EXPECT_EQ(sent(1, "", true), (Sent{{"reduce-scatter", psi}, {"all-gather", psi}}));
    EXPECT_EQ(sent(2, "", true), (Sent{{"reduce-scatter", k * psi}, {"all-gather", psi}}));
    EXPECT_EQ(sent(2, "step", true), sent(1, "", true));
    EXPECT_EQ(sent(1, "microbatch", true), sent(2, "", true));
    // The last norm is so small that everybody sums it all: N of it go, where in parts 2 would.
    const int64_t norm = k * (dp - 2) * 4 * 64 * (dp - 1);
    EXPECT_EQ(sent(0, "microbatch", true), (Sent{{"all-reduce", 2 * k * psi + norm}}));
    EXPECT_EQ(sent(3, "", true),
              (Sent{{"reduce-scatter", k * psi}, {"shard", 2 * k * psi - k * embedding}}));
    EXPECT_EQ(sent(3, "", false), (Sent{{"reduce-scatter", k * psi}, {"shard", k * psi}}));
    EXPECT_EQ(sent(3, "step", true),
              (Sent{{"reduce-scatter", psi}, {"shard", 2 * k * psi - k * embedding}}));
  }
}

// Each use of a tied weight has gradients of its own, and each unit that reads it gathers it; kept
// from a Forward on, it is there for both.
TEST(CommunicationVolume, ATiedWeightOfOneStageIsGatheredForBothUses) {
  const int k = 6;
  const JobPlan plan = PlanOf({.dp = 2, .tied = true, .zero_stage = 3});
  const int64_t psi = 4 * plan.table.num_elements();
  auto sent = SentAlongDp(plan);
  EXPECT_EQ(sent["reduce-scatter"], k * (psi + kEmbedding));
  EXPECT_EQ(sent["shard"], 2 * k * (psi - kEmbedding) + 3 * k * kEmbedding);
  sent =
      SentAlongDp(PlanOf({.dp = 2, .tied = true, .zero_stage = 3, .reshard_after_forward = false}));
  EXPECT_EQ(sent["shard"], k * psi);
}

// No rank sends more than an even share and what the ends of its runs explain: of a row less than a
// leaf.
TEST(CommunicationVolume, OfShardsIsEvenButForTheEndsOfRows) {
  const JobPlan plan = PlanOf({.dp = 4, .zero_stage = 3});
  const auto sent = SentAlongDp(plan);
  const auto rows = static_cast<double>(ShardRowsOf(plan.table, plan.stages.front()).size());
  const auto pieces =
      static_cast<double>(GradientPiecesOf(plan.table, plan.stages.front(), plan.halves).size());
  constexpr double kLeaf = 4.0 * kShardLeafElements;
  for (int rank = 0; rank < 4; ++rank) {
    for (const CommunicationVolume& row : CommunicationOf(plan, Rank(rank))) {
      const double even = static_cast<double>(sent.at(std::string(row.operation))) / 4;
      const double ends = row.operation == "shard" ? 2 * 3 * 3 * rows * kLeaf : 3 * pieces * kLeaf;
      EXPECT_NEAR(static_cast<double>(row.bytes), even, ends) << row.operation << " of " << rank;
    }
  }
}

// A piece of each microbatch is an operation; a run goes to each other rank by itself.
TEST(CommunicationVolume, CountsOperationsAndRuns) {
  const JobPlan plan = PlanOf({.dp = 2, .zero_stage = 3});
  const auto rows = CommunicationOf(plan, Rank(0));
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].operation, "reduce-scatter");
  EXPECT_EQ(rows[0].count, 6 * (1 + 8 + 2)) << "the embedding, layers, the head's matrix and norm";
  EXPECT_EQ(rows[1].operation, "shard");
  EXPECT_EQ(rows[1].count, 6 * (1 + 2 * (8 + 1)));
}

TEST(CommunicationVolume, OfDataParallelPipelinesIsThatOfTheirStages) {
  for (const std::string schedule : {"1f1b", "zb-h1", "interleaved-1f1b"}) {
    const JobPlan plan = PlanOf({.pp = 2, .dp = 2, .schedule = schedule, .zero_stage = 3});
    const auto sent = SentAlongDp(plan);
    const int64_t psi = 4 * plan.table.num_elements();
    EXPECT_EQ(sent.at("reduce-scatter"), 6 * psi) << schedule;
    EXPECT_EQ(sent.at("shard"), 2 * 6 * psi - 6 * kEmbedding) << schedule;
  }
}

std::vector<Action> ListOf(std::initializer_list<std::string_view> actions) {
  std::vector<Action> list;
  for (const std::string_view text : actions) list.push_back(*ParseAction(text));
  return list;
}

// A unit that is kept by one microbatch is there for the next.
TEST(GathersOf, FollowsTheList) {
  const auto one = ListOf({"0F0", "0B0", "0F1", "0B1", "0F2", "0B2"});
  EXPECT_EQ(GathersOf(one, StageId(0), true), (UnitGathers{3, 3}));
  EXPECT_EQ(GathersOf(one, StageId(0), false), (UnitGathers{3, 0}));
  const auto two = ListOf({"0F0", "0F1", "0B0", "0F2", "0B1", "0B2", "0F3", "0B3"});
  EXPECT_EQ(GathersOf(two, StageId(0), true), (UnitGathers{4, 4}));
  EXPECT_EQ(GathersOf(two, StageId(0), false), (UnitGathers{2, 0}))
      << "at the start, and where none was between its passes";
}

// A weight gradient reads no weights, and other stages of the rank have theirs.
TEST(GathersOf, CountsPassesThatReadWeights) {
  const auto halves = ListOf({"0F0", "1F0", "1I0", "0I0", "1W0", "0F1", "0I1", "0W0", "0W1"});
  EXPECT_EQ(GathersOf(halves, StageId(0), true), (UnitGathers{2, 2}));
  EXPECT_EQ(GathersOf(halves, StageId(0), false), (UnitGathers{2, 0}));
  EXPECT_EQ(GathersOf(halves, StageId(1), true), (UnitGathers{1, 1}));
  EXPECT_EQ(GathersOf(halves, StageId(2), true), (UnitGathers{}));
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
