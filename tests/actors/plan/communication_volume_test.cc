#include "actors/plan/communication_volume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <map>

#include "actors/plan/gradient_piece.h"
#include "actors/plan/job_plan.h"
#include "runtime/base/all_reduce_parts.h"

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
  int zero_group = 0;  // 0: not given
  int64_t persist_elements = 0;
  std::string reduction = "ordered";
  std::string algorithm = "all_reduce";
  std::string grad_dtype = "float32";
  int cp = 1;
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
  if (24 % (2 * c.dp) != 0) batch.set_global_batch_size(2 * c.dp * 4);
  if (c.schedule == "dualpipe") batch.set_global_batch_size(2 * c.dp * 2 * c.pp);
  batch.set_seq_len(32);
  if (c.schedule == "dualpipe") batch.set_gradient_groups(2 * c.dp);
  spec.mutable_parallelism()->set_pp(c.pp);
  spec.mutable_parallelism()->set_dp(c.dp);
  spec.mutable_parallelism()->set_cp(c.cp);
  spec.mutable_parallelism()->set_schedule(c.schedule);
  spec.mutable_parallelism()->set_zero_stage(c.zero_stage);
  spec.mutable_parallelism()->set_reshard_after_forward(c.reshard_after_forward);
  if (!c.grad_reduce.empty()) spec.mutable_parallelism()->set_grad_reduce(c.grad_reduce);
  if (c.zero_group > 0) spec.mutable_parallelism()->set_zero_group(c.zero_group);
  spec.mutable_parallelism()->set_persist_elements(c.persist_elements);
  spec.mutable_parallelism()->set_reduction(c.reduction);
  spec.mutable_data_parallel()->set_algorithm(c.algorithm);
  spec.mutable_train()->set_grad_dtype(c.grad_dtype);
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
// once. With resharding the embedding and the head, which no backward reads, are gathered once for
// each microbatch instead of twice.
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
    const int64_t head = embedding + 4 * 64 * (dp - 1);
    using Sent = std::map<std::string, int64_t>;
    EXPECT_EQ(sent(1, "", true), (Sent{{"reduce-scatter", psi}, {"all-gather", psi}}));
    EXPECT_EQ(sent(2, "", true), (Sent{{"reduce-scatter", k * psi}, {"all-gather", psi}}));
    EXPECT_EQ(sent(2, "step", true), sent(1, "", true));
    EXPECT_EQ(sent(1, "microbatch", true), sent(2, "", true));
    // The last norm is so small that everybody sums it all: N of it go, where in parts 2 would.
    const int64_t norm = k * (dp - 2) * 4 * 64 * (dp - 1);
    EXPECT_EQ(sent(0, "microbatch", true), (Sent{{"all-reduce", 2 * k * psi + norm}}));
    EXPECT_EQ(sent(3, "", true),
              (Sent{{"reduce-scatter", k * psi}, {"shard", 2 * k * psi - k * (embedding + head)}}));
    EXPECT_EQ(sent(3, "", false), (Sent{{"reduce-scatter", k * psi}, {"shard", k * psi}}));
    EXPECT_EQ(sent(3, "step", true),
              (Sent{{"reduce-scatter", psi}, {"shard", 2 * k * psi - k * (embedding + head)}}));
  }
}

// Ranks that share sequences have the same weights: they send what as many data-parallel ranks with
// as many microbatches send.
TEST(CommunicationVolume, OfRanksThatShareSequencesIsThatOfTheirNumber) {
  for (const int stage : {0, 1, 2, 3}) {
    for (const int dp : {1, 2, 4}) {
      for (const std::string reduction : {"ordered", "ring"}) {
        for (const int group : {0, 2}) {
          Case c{.pp = 2, .dp = dp, .tied = true, .zero_stage = stage, .zero_group = group};
          c.grad_reduce = "step";
          c.reduction = reduction;
          c.cp = 4 / dp == 1 ? 2 : 4 / dp;
          const auto shared = SentAlongDp(PlanOf(c));
          const int64_t microbatches = PlanOf(c).batch.num_microbatches;
          c.dp *= std::exchange(c.cp, 1);
          auto apart = SentAlongDp(PlanOf(c));
          // Units are gathered for each microbatch.
          apart["shard"] = apart["shard"] / PlanOf(c).batch.num_microbatches * microbatches;
          if (stage < 3) apart.erase("shard");
          EXPECT_EQ(shared, apart) << "stage " << stage << " dp " << dp << " " << reduction;
        }
      }
    }
  }
}

TEST(CommunicationVolume, ARankSendsItsPartOfABoundary) {
  const JobPlan plan = PlanOf({.pp = 2, .cp = 4});
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(CommunicationOf(plan, Rank(rank)).front(),
              (CommunicationVolume{Axis::kPp, "activation", 12, 12 * kBoundary / 4}));
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
  EXPECT_EQ(sent["shard"], 2 * k * psi - k * 4 * 64) << "both in Forwards; the norm once";
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
  EXPECT_EQ(rows[1].count, 6 * (1 + 2 * 8 + 1));
}

TEST(CommunicationVolume, OfDataParallelPipelinesIsThatOfTheirStages) {
  for (const std::string schedule : {"1f1b", "zb-h1", "interleaved-1f1b"}) {
    const JobPlan plan = PlanOf({.pp = 2, .dp = 2, .schedule = schedule, .zero_stage = 3});
    const auto sent = SentAlongDp(plan);
    const int64_t psi = 4 * plan.table.num_elements();
    EXPECT_EQ(sent.at("reduce-scatter"), 6 * psi) << schedule;
    EXPECT_EQ(sent.at("shard"), 2 * 6 * psi - 6 * (2 * kEmbedding + 4 * 64)) << schedule;
  }
}

// Psi - S / R and (R - 1) S / R of each rank in order, along rings Psi - S and 2 S (R - 1) / R: of
// all together M - 1 + R - 1 times Psi, with M members.
TEST(CommunicationVolume, GroupsThatRepeatShardsSendAsMuchInEitherWay) {
  const int64_t psi = 4 * PlanOf({}).table.num_elements();
  for (const int group : {2, 3}) {
    const int replicas = 6 / group;
    for (const int stage : {1, 2, 3}) {
      const int k = stage == 1 ? 1 : 2;
      Case c{.dp = 6, .zero_stage = stage, .zero_group = group};
      auto ordered = SentAlongDp(PlanOf(c));
      c.reduction = "ring";
      auto ring = SentAlongDp(PlanOf(c));
      const int64_t weights = stage < 3 ? replicas * (group - 1) * psi : 0;
      EXPECT_EQ(ordered["reduce-scatter"], k * (6 - 1) * psi);
      EXPECT_EQ(ordered["all-gather"], k * (replicas - 1) * psi + weights);
      EXPECT_EQ(ring["reduce-scatter"], k * (6 - replicas) * psi);
      EXPECT_EQ(ring["all-reduce"], k * 2 * (replicas - 1) * psi);
      EXPECT_EQ(ring["all-gather"], weights);
      EXPECT_EQ(ordered["shard"], ring["shard"]);
      if (stage == 3) {
        EXPECT_EQ(ordered["shard"],
                  replicas * (group - 1) * (2 * 2 * psi - 2 * (2 * kEmbedding + 4 * 64)));
      }
    }
  }
}

// A row of 64 floats is a norm: everybody sums all of it, in order.
TEST(CommunicationVolume, WhatPersistsIsReducedWholeAndNeverGathered) {
  constexpr int64_t kNorms = (2 * 8 + 1) * 64 * 4;
  const int64_t psi = 4 * PlanOf({}).table.num_elements() - kNorms;
  Case c{.dp = 4, .zero_stage = 1, .persist_elements = 65};
  auto sent = SentAlongDp(PlanOf(c));
  EXPECT_EQ(sent["reduce-scatter"], 3 * psi);
  EXPECT_EQ(sent["all-gather"], 3 * psi);
  EXPECT_EQ(sent["all-reduce"], 4 * 3 * kNorms);
  c.reduction = "ring";
  sent = SentAlongDp(PlanOf(c));
  EXPECT_EQ(sent["all-reduce"], 2 * 3 * kNorms);
  c.zero_stage = 3;
  sent = SentAlongDp(PlanOf(c));
  EXPECT_EQ(sent["reduce-scatter"], 3 * 3 * psi);
  EXPECT_EQ(sent["all-reduce"], 3 * 2 * 3 * kNorms);
  EXPECT_EQ(sent["shard"], 3 * (2 * 3 * psi - 3 * 2 * kEmbedding));
  c.persist_elements = int64_t{1} << 30;
  sent = SentAlongDp(PlanOf(c));
  EXPECT_EQ(sent.size(), 1U) << "nothing is in shards";
  EXPECT_EQ(sent["all-reduce"], 3 * 2 * 3 * (psi + kNorms));
}

// Along a ring a rank sends all parts but its own, then all but its next neighbour's.
TEST(CommunicationVolume, OfARingIsItsHops) {
  for (const int dp : {2, 3, 4}) {
    const JobPlan plan = PlanOf({.dp = dp, .reduction = "ring"});
    const int64_t elements = plan.table.num_elements();
    const auto parts = DivideRing(elements, dp).summed;
    for (int rank = 0; rank < dp; ++rank) {
      int64_t sent = 0;
      for (int part = 0; part < dp; ++part) {
        if (part != rank) sent += parts[static_cast<size_t>(part)].count;
        if (part != (rank + 1) % dp) sent += parts[static_cast<size_t>(part)].count;
      }
      EXPECT_THAT(CommunicationOf(plan, Rank(rank)),
                  ElementsAre(CommunicationVolume{Axis::kDp, "all-reduce", 1, 4 * sent}));
    }
  }
}

// Psi from every rank but the end.
TEST(CommunicationVolume, OfAChainIsEverythingUpAndDown) {
  const JobPlan plan = PlanOf({.dp = 3, .algorithm = "reduce_broadcast"});
  const int64_t psi = 4 * plan.table.num_elements();
  const auto rows = [&psi](bool up, bool down) {
    return ElementsAre(CommunicationVolume{Axis::kDp, "reduce", 1, up ? psi : 0},
                       CommunicationVolume{Axis::kDp, "broadcast", 1, down ? psi : 0});
  };
  EXPECT_THAT(CommunicationOf(plan, Rank(0)), rows(true, false));
  EXPECT_THAT(CommunicationOf(plan, Rank(1)), rows(true, true));
  EXPECT_THAT(CommunicationOf(plan, Rank(2)), rows(false, true));
}

TEST(CommunicationVolume, NarrowGradientsTakeHalfTheBytes) {
  for (const int stage : {0, 1, 2, 3}) {
    Case c{.dp = 2, .zero_stage = stage};
    auto wide = SentAlongDp(PlanOf(c));
    c.grad_dtype = "bfloat16";
    auto narrow = SentAlongDp(PlanOf(c));
    for (const char* operation : {"all-reduce", "reduce-scatter"}) {
      EXPECT_EQ(2 * narrow[operation], wide[operation]) << stage;
    }
    for (const char* operation : {"all-gather", "shard"}) {
      EXPECT_EQ(narrow[operation], wide[operation]) << "of weights";
    }
  }
}

// Both directions' copies are members of one sum; weights go within a direction.
TEST(CommunicationVolume, TwoDirectionsAreMembersOfOneSum) {
  Case c{.pp = 2, .dp = 2, .schedule = "dualpipe"};
  const JobPlan plan = PlanOf(c);
  const int64_t psi = 4 * plan.table.num_elements();
  EXPECT_EQ(SentAlongDp(plan), (std::map<std::string, int64_t>{{"all-reduce", 2 * 3 * psi}}));
  c.zero_stage = 1;
  EXPECT_EQ(SentAlongDp(PlanOf(c)), (std::map<std::string, int64_t>{{"reduce-scatter", 3 * psi},
                                                                    {"all-gather", psi + 2 * psi}}))
      << "of gradients between two replicas, of weights in each direction";
  for (int rank = 0; rank < 4; ++rank) {
    for (const CommunicationVolume& row : CommunicationOf(plan, Rank(rank))) {
      EXPECT_TRUE(row.axis == Axis::kDp || row.operation != "all-reduce");
    }
  }
}

struct Expected {
  int64_t gradients = 0;
  int64_t weights = 0;
};
// Of all ranks together, by the formulas alone: no rank's own place in them.
Expected ExpectedOf(const JobPlan& plan) {
  const int owners = plan.num_owners();
  const int replicas = plan.num_shard_replicas();
  const int members = owners * replicas;
  const bool each = plan.batch.grad_reduce == GradReduce::kMicrobatch;
  Expected sent;
  for (int stage = 0; stage < plan.train.StagesPerDirection(); ++stage) {
    const StageLayout& layout = plan.stages[static_cast<size_t>(stage)];
    const ShardPlace place = plan.ShardPlaceOf(Rank(0), StageId(0));
    const auto whole = [&](int64_t elements) {
      const bool everywhere = plan.reduction == ReductionAlgorithm::kOrdered &&
                              DivideAllReduce(elements, plan.widths.grad_bytes, members).everywhere;
      return everywhere ? members * (members - 1) * elements : 2 * (members - 1) * elements;
    };
    for (const ParameterRow& row : ShardRowsOf(plan.table, layout, place)) {
      int64_t elements = 0;
      for (const int index : row.parameters) elements += plan.table[index].num_elements();
      if (row.persists || owners == 1) continue;
      sent.weights += replicas * (owners - 1) * elements;
    }
    if (each) {
      for (const GradientPiece& piece : GradientPiecesOf(plan.table, layout, plan.halves, place)) {
        const bool shared = owners > 1 && !piece.persists;
        sent.gradients += plan.batch.num_microbatches *
                          (shared ? (members - 1 + replicas - 1) * piece.num_elements
                                  : whole(piece.num_elements));
      }
    } else if (owners == 1) {
      for (const GradientRun& run : GradientRunsOf(plan.table, layout, 1000)) {
        sent.gradients += whole(run.num_elements);
      }
    } else {
      for (const ParameterRow& row : ShardRowsOf(plan.table, layout, place)) {
        int64_t elements = 0;
        for (const int index : row.parameters) elements += plan.table[index].num_elements();
        const bool twice = plan.table.tied() && layout.has_embedding() && layout.has_head() &&
                           row.parameters.front() == plan.table.embedding_index();
        sent.gradients +=
            (twice ? 2 : 1) *
            (row.persists ? whole(elements) : (members - 1 + replicas - 1) * elements);
      }
    }
  }
  return sent;
}

TEST(CommunicationVolume, OfAnyLayoutIsWhatItsMembersNeed) {
  EXPECT_TRUE(rc::check("any data-parallel layout", [] {
    const bool two_directions = *rc::gen::arbitrary<bool>();
    Case c{.pp = two_directions ? 2 : *rc::gen::inRange(1, 4),
           .dp = *rc::gen::inRange(2, 9),
           .tied = *rc::gen::arbitrary<bool>(),
           .schedule = two_directions ? "dualpipe" : "1f1b",
           .zero_stage = *rc::gen::inRange(0, 4),
           .grad_reduce =
               two_directions ? "step" : *rc::gen::element<std::string>("step", "microbatch")};
    c.zero_group = *rc::gen::suchThat(rc::gen::inRange(1, c.dp + 1),
                                      [&c](int group) { return c.dp % group == 0; });
    c.persist_elements = *rc::gen::element<int64_t>(0, 65, 9000);
    c.reduction = *rc::gen::element<std::string>("ordered", "ring");
    c.grad_dtype = *rc::gen::element<std::string>("float32", "bfloat16");
    if (c.zero_stage == 0 && c.reduction == "ordered" && *rc::gen::arbitrary<bool>()) {
      c.algorithm = "reduce_broadcast";
    }
    JobPlan plan = PlanOf(c);
    plan.bucket_bytes = 1000 * plan.widths.grad_bytes;
    const Expected expected = ExpectedOf(plan);
    auto sent = SentAlongDp(plan);
    const int64_t weights =
        plan.GathersAfterUpdate() ? expected.weights * plan.widths.compute_bytes : 0;
    int64_t gradients = 0;
    for (const auto& [operation, bytes] : sent) gradients += operation == "shard" ? 0 : bytes;
    RC_ASSERT(gradients == expected.gradients * plan.widths.grad_bytes + weights);
    RC_ASSERT(sent.contains("shard") == (plan.GathersUnits() && expected.weights > 0));
  }));
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

// All rows once at UNSHARD, and nothing more up to RESHARD.
TEST(GathersOf, AnEntryGathersForEveryPassInBetween) {
  const auto list = ListOf({"0F0", "0UNSHARD", "0F1", "0B0", "0B1", "0RESHARD", "0F2", "0B2"});
  EXPECT_EQ(GathersOf(list, StageId(0), true),
            (UnitGathers{.forward = 2, .backward = 1, .entries = 1}));
  EXPECT_EQ(GathersOf(list, StageId(0), false), (UnitGathers{.forward = 2}))
      << "the first Forward keeps them until the second backward";
  EXPECT_EQ(GathersOf(list, StageId(1), true), (UnitGathers{}));
  const auto all = ListOf({"0UNSHARD", "0F0", "0F1", "0B0", "0RESHARD", "0B1"});
  EXPECT_EQ(GathersOf(all, StageId(0), true), (UnitGathers{.backward = 1, .entries = 1}));
  EXPECT_EQ(GathersOf(all, StageId(0), false), (UnitGathers{.entries = 1}));
}

// An entry gathers the embedding's row once for both of its uses.
TEST(CommunicationVolume, OfAListWithEntriesIsEachRowOnce) {
  for (const bool tied : {false, true}) {
    JobPlan plan = PlanOf({.dp = 2, .tied = tied, .zero_stage = 3});
    std::vector<Action>& list = plan.train.ranks[0];
    list.insert(list.begin(), *ParseAction("0UNSHARD"));
    list.push_back(*ParseAction("0RESHARD"));
    EXPECT_EQ(SentAlongDp(plan).at("shard"), 4 * plan.table.num_elements());
    EXPECT_TRUE(plan.ShapeOf(StageId(0)).unshards);
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
