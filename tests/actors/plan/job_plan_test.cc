#include "actors/plan/job_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/plan/gradient_piece.h"
#include "actors/schedule/rank_list.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

proto::JobSpec Spec(int pp) {
  proto::JobSpec spec;
  auto& model = *spec.mutable_model();
  model.set_hidden_size(64);
  model.set_intermediate_size(96);
  model.set_num_hidden_layers(6);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(2);
  model.set_vocab_size(100);
  model.set_max_position_embeddings(64);
  auto& batch = *spec.mutable_batch();
  batch.set_micro_batch_size(2);
  batch.set_global_batch_size(16);
  batch.set_seq_len(32);
  spec.mutable_parallelism()->set_pp(pp);
  spec.mutable_optimizer()->set_lr(0.001);
  spec.mutable_train()->set_steps(20);
  return spec;
}

TEST(JobPlan, StagesHoldEveryLayerAndOwnEveryParameterOnce) {
  for (const int pp : {1, 2, 3, 4, 6}) {
    const auto plan = MakeJobPlan(Spec(pp));
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    ASSERT_EQ(plan->stages.size(), static_cast<size_t>(pp));
    std::vector<int> owners(static_cast<size_t>(plan->table.size()), 0);
    int next_layer = 0;
    for (const StageLayout& stage : plan->stages) {
      EXPECT_EQ(stage.first_layer, next_layer);
      next_layer += stage.num_layers;
      for (const int p : OwnedParametersOf(plan->table, stage)) ++owners[static_cast<size_t>(p)];
    }
    EXPECT_EQ(next_layer, 6);
    EXPECT_THAT(owners, ::testing::Each(1));
  }
}

TEST(JobPlan, OneFOneBKeepsFewerMicrobatchesThanGPipe) {
  auto spec = Spec(4);
  const auto one_f_one_b = MakeJobPlan(spec);
  spec.mutable_parallelism()->set_schedule("gpipe");
  const auto gpipe = MakeJobPlan(spec);
  ASSERT_TRUE(one_f_one_b.ok() && gpipe.ok());
  EXPECT_THAT(one_f_one_b->peak_microbatches, ::testing::ElementsAre(4, 3, 2, 1));
  EXPECT_THAT(gpipe->peak_microbatches, ::testing::Each(8));
  constexpr auto kActivations = static_cast<size_t>(MemoryTag::kActivations);
  EXPECT_EQ(gpipe->MemoryOf(Rank(0), VectorIsa::kAvx2)[kActivations],
            2 * one_f_one_b->MemoryOf(Rank(0), VectorIsa::kAvx2)[kActivations]);
}

TEST(JobPlan, CommunicationIsSlotsOutputBuffersAndBlocksOfReductions) {
  auto spec = Spec(3);
  spec.mutable_model()->set_tie_word_embeddings(true);
  const auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok());
  const auto comm = [&](int rank) {
    return plan->MemoryOf(Rank(rank), VectorIsa::kAvx2)[static_cast<size_t>(MemoryTag::kComm)];
  };
  constexpr int64_t kBoundary = 2 * 32 * 64 * 4;  // whole pages
  // Blocks of the tied gradient, as many to the other rank as from it.
  constexpr int64_t kTied = 2 * kReductionSlots * ((100 * 64 * 4 + 4095) / 4096 * 4096);
  const auto slots = [&](int from, int to, InputKind kind) {
    return SlotsFor(plan->channels, PipelineRank(from), PipelineRank(to), kind);
  };
  EXPECT_EQ(comm(0), kBoundary * (slots(1, 0, InputKind::kGradient) + 2) + kTied);
  EXPECT_EQ(comm(1), kBoundary * (slots(0, 1, InputKind::kActivation) +
                                  slots(2, 1, InputKind::kGradient) + 4));
  EXPECT_EQ(comm(2), kBoundary * (slots(1, 2, InputKind::kActivation) + 2) + kTied);
  const auto alone = MakeJobPlan(Spec(1));
  ASSERT_TRUE(alone.ok());
  EXPECT_EQ(alone->MemoryOf(Rank(0), VectorIsa::kAvx2)[static_cast<size_t>(MemoryTag::kComm)], 0);
}

// No two of one lane are open at once: more workspaces than lanes would never be used.
TEST(JobPlan, AStageHasAWorkspaceForEachActionThatMayBeOpen) {
  auto plan = MakeJobPlan(Spec(4));
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->ShapeOf(StageId(1)).open_actions, 1);
  TrainSchedule other{.schedule = plan->train};
  other.policy.open_actions = 2;
  plan->others.push_back(other);
  EXPECT_EQ(plan->ShapeOf(StageId(1)).open_actions, 2);
  plan->policy.open_actions = 9;
  EXPECT_EQ(plan->ShapeOf(StageId(1)).open_actions, RankList::kLanesPerStage);
}

// Two pipelines of three: of each, one rank stands at every place.
TEST(JobPlan, ARankHoldsWhatItsPlaceInThePipelineHolds) {
  auto spec = Spec(3);
  spec.mutable_model()->set_tie_word_embeddings(true);
  auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok());
  proto::Parallelism wider;
  wider.set_dp(2);
  wider.set_pp(3);
  plan->mesh = *Mesh::FromSpec(wider);
  for (const int rank : {2, 3}) {
    EXPECT_EQ(plan->PipelineRankOf(Rank(rank)), PipelineRank(1));
    EXPECT_THAT(plan->StagesOf(Rank(rank)), ::testing::ElementsAre(StageId(1)));
  }
  EXPECT_EQ(plan->MemoryOf(Rank(4), VectorIsa::kAvx2), plan->MemoryOf(Rank(5), VectorIsa::kAvx2));
  ASSERT_EQ(plan->reductions.size(), 1u) << "the tied embedding's";
  EXPECT_THAT(plan->MembersOf(plan->reductions[0], Rank(3)),
              ::testing::ElementsAre(Rank(1), Rank(5)));
}

TEST(JobPlan, OneWorkerHasNoBubbleAndNoChannel) {
  const auto one = MakeJobPlan(Spec(1));
  const auto four = MakeJobPlan(Spec(4));
  ASSERT_TRUE(one.ok() && four.ok());
  EXPECT_EQ(one->simulation.idle.bubble_makespan, 0);
  EXPECT_TRUE(one->channels.empty());
  EXPECT_GT(four->simulation.idle.bubble_makespan, 0);
  EXPECT_EQ(one->simulation.idle.makespan_ns, one->simulation.idle.work_ns);
}

TEST(JobPlan, RefusesByFieldName) {
  const auto message = [](const proto::JobSpec& spec) {
    const auto plan = MakeJobPlan(spec);
    return plan.ok() ? std::string("accepted") : plan.error().message;
  };
  EXPECT_THAT(message(Spec(7)), HasSubstr("parallelism.pp"));
  auto spec = Spec(2);
  spec.mutable_parallelism()->set_tp(2);
  EXPECT_THAT(message(spec), HasSubstr("parallelism.tp"));
  spec = Spec(2);
  spec.mutable_batch()->set_seq_len(65);
  EXPECT_THAT(message(spec), HasSubstr("batch.seq_len"));
  spec = Spec(2);
  spec.mutable_model()->set_num_attention_heads(5);
  EXPECT_THAT(message(spec), HasSubstr("model.num_attention_heads"));
  spec = Spec(2);
  spec.mutable_parallelism()->set_schedule("2f2b");
  EXPECT_THAT(message(spec), HasSubstr("2f2b"));
}

TEST(JobPlan, DataParallelRanksSumAGroupEach) {
  auto spec = Spec(2);
  spec.mutable_parallelism()->set_dp(2);
  spec.mutable_model()->set_tie_word_embeddings(true);
  const auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->mesh.num_ranks(), 4);
  EXPECT_EQ(plan->batch.num_microbatches, 4);
  EXPECT_EQ(plan->batch.gradient_groups, 2);
  EXPECT_EQ(plan->batch.NumberInStep(1, 3), 7);
  EXPECT_EQ(plan->ShapeOf(StageId(0)).batch.gradient_groups, 1);
  ASSERT_EQ(plan->reductions.size(), 3U) << "two stages', then the tied embedding's";
  EXPECT_EQ(plan->reductions[1].weights, SharedWeights::kStage);
  EXPECT_THAT(plan->MembersOf(plan->reductions[1], Rank(0)),
              ::testing::ElementsAre(Rank(2), Rank(3)));
  EXPECT_THAT(plan->MembersOf(plan->reductions[2], Rank(3)),
              ::testing::ElementsAre(Rank(1), Rank(3)));
  EXPECT_TRUE(plan->Owns(Rank(2), StageId(1)));
  EXPECT_FALSE(plan->Owns(Rank(3), StageId(1)));
  EXPECT_FALSE(plan->Exports(Rank(3), StageId(1)));

  spec.mutable_batch()->set_gradient_groups(4);
  EXPECT_THAT(MakeJobPlan(spec).error().message,
              HasSubstr("batch.gradient_groups = 4: with parallelism.dp = 2 every rank sums one"));
  spec.mutable_batch()->clear_gradient_groups();
  spec.mutable_parallelism()->set_schedule("dualpipe");
  EXPECT_THAT(MakeJobPlan(spec).error().message,
              HasSubstr("parallelism.dp = 2: schedule dualpipe sums its two directions"));
}

// ZeRO-1: 2 + 4/N + 8/N bytes of a bfloat16 parameter but its gradient, 4 + 8/N of a float32 one.
TEST(JobPlan, OptimizerStateIsSharedOut) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    auto spec = Spec(1);
    spec.mutable_train()->set_dtype(dtype);
    spec.mutable_parallelism()->set_dp(4);
    const auto whole = MakeJobPlan(spec);
    spec.mutable_parallelism()->set_zero_stage(1);
    const auto shared = MakeJobPlan(spec);
    ASSERT_TRUE(whole.ok() && shared.ok());
    const int64_t elements = shared->table.num_elements();
    int64_t params = 0;
    int64_t optimizer = 0;
    for (int rank = 0; rank < 4; ++rank) {
      const auto memory = shared->MemoryOf(Rank(rank), VectorIsa::kAvx2);
      params += memory[static_cast<size_t>(MemoryTag::kParams)];
      optimizer += memory[static_cast<size_t>(MemoryTag::kOptimizer)];
      EXPECT_TRUE(shared->Owns(Rank(rank), StageId(0)));
      EXPECT_EQ(shared->Exports(Rank(rank), StageId(0)), rank == 0);
    }
    EXPECT_EQ(optimizer, 8 * elements);
    EXPECT_EQ(params, std::string(dtype) == "float32" ? 4 * 4 * elements : (4 * 2 + 4) * elements);
    EXPECT_EQ(
        whole->MemoryOf(Rank(3), VectorIsa::kAvx2)[static_cast<size_t>(MemoryTag::kOptimizer)],
        8 * elements);
  }
  auto spec = Spec(1);
  spec.mutable_parallelism()->set_zero_stage(4);
  EXPECT_THAT(MakeJobPlan(spec).error().message, HasSubstr("parallelism.zero_stage = 4: use 0"));
}

// Reduced every microbatch, each of a rank's microbatches closes a group.
TEST(JobPlan, StagesKnowWhatIsSharedOutAndWhenGradientsAreReduced) {
  auto spec = Spec(2);
  spec.mutable_parallelism()->set_dp(2);
  spec.mutable_parallelism()->set_zero_stage(3);
  spec.mutable_parallelism()->set_zero_prefetch(2);
  auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  const StageShape shape = plan->ShapeOf(StageId(1));
  EXPECT_EQ(shape.zero.stage, 3);
  EXPECT_EQ(shape.zero.prefetch, 2);
  EXPECT_EQ(shape.batch.grad_reduce, GradReduce::kMicrobatch);
  EXPECT_EQ(shape.batch.gradient_groups, 4);
  EXPECT_TRUE(plan->GathersUnits());
  EXPECT_FALSE(plan->GathersAfterUpdate());
  EXPECT_EQ(plan->ShardPlaceOf(Rank(3)).num_owners, 2);

  spec.mutable_parallelism()->set_grad_reduce("step");
  plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->ShapeOf(StageId(1)).batch.gradient_groups, 1);

  for (const int stage : {1, 2}) {
    spec.mutable_parallelism()->set_zero_stage(stage);
    plan = MakeJobPlan(spec);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    EXPECT_TRUE(plan->GathersAfterUpdate());
    EXPECT_FALSE(plan->GathersUnits());
  }
  spec.mutable_parallelism()->set_dp(1);
  plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_FALSE(plan->GathersAfterUpdate()) << "one rank shares nothing out";
  EXPECT_EQ(plan->ShapeOf(StageId(1)).zero.stage, 0);
}

// The lecture's figures: bfloat16 with float32 masters and gradients, 7.5 billion parameters on 64
// ranks: 18, 6 + 12/N, 2 + 16/N and 18/N bytes a parameter.
TEST(JobPlan, ALargeModelTakesTheBytesOfItsZeroStage) {
  auto spec = Spec(1);
  auto& model = *spec.mutable_model();
  model.set_hidden_size(4096);
  model.set_intermediate_size(11'008);
  model.set_num_hidden_layers(36);
  model.set_num_attention_heads(32);
  model.set_num_key_value_heads(32);
  model.set_vocab_size(32'000);
  spec.mutable_batch()->set_global_batch_size(256);
  spec.mutable_train()->set_dtype("bfloat16");
  spec.mutable_parallelism()->set_dp(64);
  const double bytes[] = {18, 6 + 12.0 / 64, 2 + 16.0 / 64, 18.0 / 64};
  for (int stage = 0; stage < 4; ++stage) {
    spec.mutable_parallelism()->set_zero_stage(stage);
    const auto plan = MakeJobPlan(spec);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    const auto parameters = static_cast<double>(plan->table.num_elements());
    EXPECT_NEAR(parameters, 7.5e9, 0.1e9);
    for (const int rank : {0, 31, 63}) {
      const MemoryPrediction memory = plan->MemoryOf(Rank(rank), VectorIsa::kAvx512Bf16);
      int64_t states = 0;
      for (const MemoryTag tag : {MemoryTag::kParams, MemoryTag::kGrads, MemoryTag::kOptimizer}) {
        states += memory[static_cast<size_t>(tag)];
      }
      EXPECT_NEAR(static_cast<double>(states) / parameters, bytes[stage], 0.01 * bytes[stage])
          << "stage " << stage << ", rank " << rank;
    }
  }
}

// What all ranks have adds up to the model, and what a rank has differs by no more than the uneven
// ends of its rows; in float32, which has no masters beside: 16, 8 + 8/N, 4 + 12/N, 16/N.
TEST(JobPlan, StatesOfAllRanksAddUpToTheModel) {
  for (const int pp : {1, 2}) {
    for (int dp = 1; dp <= 8; ++dp) {
      auto spec = Spec(pp);
      spec.mutable_batch()->set_global_batch_size(4 * dp);
      spec.mutable_parallelism()->set_dp(dp);
      const int64_t n = dp;
      const int64_t bytes[] = {16 * n, 8 * n + 8, 4 * n + 12, 16};  // a parameter, of all ranks
      for (int stage = 0; stage < 4; ++stage) {
        spec.mutable_parallelism()->set_zero_stage(stage);
        const auto plan = MakeJobPlan(spec);
        ASSERT_TRUE(plan.ok()) << plan.error().message;
        int64_t states = 0;
        for (int rank = 0; rank < pp * dp; ++rank) {
          const MemoryPrediction memory = plan->MemoryOf(Rank(rank), VectorIsa::kAvx2);
          for (const auto tag : {MemoryTag::kParams, MemoryTag::kGrads, MemoryTag::kOptimizer}) {
            states += memory[static_cast<size_t>(tag)];
          }
        }
        EXPECT_EQ(states, bytes[stage] * plan->table.num_elements())
            << "pp " << pp << ", dp " << dp << ", stage " << stage;
      }
    }
  }
}

// Slots for the runs of other owners, in whole pages; blocks of gradients as small as the pieces.
TEST(JobPlan, ShardsHaveSlotsOfTheirOwn) {
  auto spec = Spec(1);
  spec.mutable_parallelism()->set_dp(4);
  spec.mutable_parallelism()->set_zero_stage(3);
  spec.mutable_parallelism()->set_zero_prefetch(0);
  const auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  constexpr int64_t kLayer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 2 * 64;
  EXPECT_EQ(plan->ShardSlotBytes(), 4 * (kLayer / 4 + kShardLeafElements));
  EXPECT_EQ(plan->ReductionSlotBytes(), 4 * kLayer);
  constexpr int64_t kPage = 4096;
  const auto pages = [](int64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; };
  const auto comm =
      plan->MemoryOf(Rank(1), VectorIsa::kAvx2)[static_cast<size_t>(MemoryTag::kComm)];
  EXPECT_EQ(comm, 3 * kShardSlots * pages(plan->ShardSlotBytes()) +
                      2 * 3 * kReductionSlots * pages(4 * kLayer) + kGradientBuckets * 4 * kLayer +
                      2 * 4 * kLayer + kLendingPageBytes)
      << "slots, blocks, buckets, the embedding beside the first layer";
}

// `auto` leaves out what a reduction of every microbatch cannot follow.
TEST(JobPlan, TheChoiceOfAScheduleFollowsItsListsWhereEachMicrobatchIsReduced) {
  auto spec = Spec(2);
  spec.mutable_parallelism()->set_dp(2);
  spec.mutable_parallelism()->set_zero_stage(2);
  spec.mutable_parallelism()->set_schedule("auto");
  const auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->policy.mode, ExecutorMode::kStrict);
  for (const TrainSchedule& other : plan->others) {
    EXPECT_EQ(other.policy.mode, ExecutorMode::kStrict);
  }
  EXPECT_FALSE(plan->others.empty());
}

TEST(JobPlan, TheReferenceKeepsMicrobatchesAndGroups) {
  auto spec = Spec(4);
  spec.mutable_batch()->set_gradient_groups(2);
  const auto plan = MakeJobPlan(spec);
  const auto single = MakeJobPlan(SingleWorkerSpec(spec));
  ASSERT_TRUE(plan.ok() && single.ok());
  EXPECT_EQ(single->mesh.num_ranks(), 1);
  EXPECT_EQ(single->batch.num_microbatches, plan->batch.num_microbatches);
  EXPECT_EQ(single->batch.gradient_groups, 2);
}

// Its zero_stage goes with its data-parallel ranks: when gradients were added is said.
TEST(JobPlan, TheReferenceAddsGradientsAsTheRunDoes) {
  auto spec = Spec(2);
  spec.mutable_parallelism()->set_dp(2);
  spec.mutable_parallelism()->set_zero_stage(2);
  const proto::JobSpec alone = SingleWorkerSpec(spec);
  EXPECT_EQ(alone.parallelism().grad_reduce(), "microbatch");
  EXPECT_FALSE(alone.parallelism().has_zero_stage());
  const auto plan = MakeJobPlan(alone);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->batch.num_microbatches, 8);
  EXPECT_EQ(plan->batch.gradient_groups, 4) << "microbatches of a rank";
  EXPECT_EQ(plan->ShapeOf(StageId(0)).batch.gradient_groups, 4);
  EXPECT_EQ(plan->ShapeOf(StageId(0)).batch.grad_reduce, GradReduce::kMicrobatch);
}

}  // namespace
}  // namespace troupe
