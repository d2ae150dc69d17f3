#include "actors/plan/job_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <string>

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
  spec = Spec(2);
  spec.mutable_parallelism()->set_dp(2);
  spec.mutable_parallelism()->set_bucket_bytes(0);
  spec.mutable_parallelism()->set_zero_group(4);
  spec.mutable_parallelism()->set_reduction("star");
  spec.mutable_train()->set_dtype("float16");
  spec.mutable_train()->set_grad_dtype("int8");
  const JobPlanReading all = ReadJobPlan(spec);
  std::string said;
  for (const Error& error : all.errors) said += error.message + "\n";
  EXPECT_EQ(all.errors.size(), 5U) << said;
  for (const char* text :
       {"train.dtype = float16", "train.grad_dtype = int8: use float32 or bfloat16",
        "parallelism.zero_group = 4 does not divide", "parallelism.bucket_bytes",
        "parallelism.reduction = star"}) {
    EXPECT_THAT(said, HasSubstr(text));
  }
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
  spec.mutable_parallelism()->set_schedule("dualpipe");
  const auto two = MakeJobPlan(spec);
  ASSERT_TRUE(two.ok()) << two.error().message;
  ASSERT_EQ(two->reductions.size(), 4U) << "of two directions, then each one's tied embedding";
  EXPECT_EQ(two->reductions[1],
            (GradientReduction{SharedWeights::kStage, {StageId(1), StageId(3)}}));
  // Data-parallel ranks 2 and 3 have direction 0 of the stage, 0 and 1 the other.
  EXPECT_THAT(two->MembersOf(two->reductions[1], Rank(1)),
              ::testing::ElementsAre(Rank(2), Rank(0), Rank(3), Rank(1)));
  EXPECT_EQ(two->reductions[3].weights, SharedWeights::kTied);
  EXPECT_EQ(two->ShapeOf(StageId(0)).batch.gradient_groups, 1);
  EXPECT_EQ(two->ShapeOf(StageId(0)).batch.num_microbatches, 2);
}

// A layout of ranks with the same weights in groups that share shards, drawn at random.
JobPlan DrawnPlan(proto::JobSpec* drawn = nullptr) {
  const bool two_directions = *rc::gen::arbitrary<bool>();
  const int pp = two_directions ? 2 * *rc::gen::inRange(1, 3) : *rc::gen::inRange(1, 4);
  const int cp = *rc::gen::element(1, 1, 2, 3, 4, 8);
  const int dp = *rc::gen::inRange(1, 8 / cp + 1);
  const int replicas = dp * cp;
  auto spec = Spec(pp);
  spec.mutable_batch()->set_seq_len(48);
  spec.mutable_parallelism()->set_cp(cp);
  spec.mutable_batch()->set_global_batch_size(2 * dp * (two_directions ? 2 * pp : 2));
  spec.mutable_model()->set_tie_word_embeddings(*rc::gen::arbitrary<bool>());
  auto& p = *spec.mutable_parallelism();
  p.set_dp(dp);
  p.set_zero_stage(*rc::gen::inRange(0, 4));
  p.set_zero_group(*rc::gen::suchThat(rc::gen::inRange(1, replicas + 1),
                                      [replicas](int group) { return replicas % group == 0; }));
  p.set_persist_elements(*rc::gen::element<int64_t>(0, 65, 9000));
  if (two_directions) {
    p.set_schedule("dualpipe");
    p.set_grad_reduce("step");
    spec.mutable_batch()->set_gradient_groups(2 * dp);
  } else {
    p.set_grad_reduce(*rc::gen::element<std::string>("step", "microbatch"));
  }
  auto plan = MakeJobPlan(spec);
  CHECK(plan.ok(), "{}", plan.error().message);
  if (drawn != nullptr) *drawn = spec;
  return *std::move(plan);
}

// Who adds up, who shares shards and who repeats one: three views of the same ranks.
TEST(JobPlan, MembersOwnersAndReplicasAgree) {
  EXPECT_TRUE(rc::check("any layout of ranks with the same weights", [] {
    const JobPlan plan = DrawnPlan();
    for (int r = 0; r < plan.mesh.num_ranks(); ++r) {
      const Rank rank(r);
      const int directions = plan.train.num_directions;
      for (const StageId stage : plan.StagesOf(rank)) {
        const ShardPlace place = plan.ShardPlaceOf(rank, stage);
        RC_ASSERT(place.num_owners * place.num_replicas ==
                  plan.batch.weight_replicas() * directions);
        RC_ASSERT(plan.OwnersOf(rank).at(static_cast<size_t>(place.owner)) == rank);
        RC_ASSERT(plan.ShardReplicasOf(rank, stage).at(static_cast<size_t>(place.replica)) == rank);
        for (const Rank owner : plan.OwnersOf(rank)) {
          RC_ASSERT(plan.ShardPlaceOf(owner, stage).replica == place.replica);
        }
        // Members stand in the order of what they add, those that share sequences beside one
        // another.
        const int32_t first = plan.batch.NumberInStep(plan.mesh.Coordinate(rank, Axis::kDp),
                                                      plan.train.FirstMicrobatch(stage).value);
        const bool once = plan.batch.grad_reduce == GradReduce::kStep;
        const int direction = plan.train.DirectionOf(stage);
        RC_ASSERT(MemberOf(place) == plan.mesh.ReplicaOf(rank) * directions + direction);
        const int data_parallel = MemberOf(place) / directions / plan.batch.context.num_ranks;
        RC_ASSERT((data_parallel * directions + direction) *
                      (once ? plan.train.MicrobatchesPerDirection() : 1) ==
                  first);
        if (plan.batch.weight_replicas() == 1) continue;
        const auto reduction =
            std::ranges::find_if(plan.reductions, [stage](const GradientReduction& of) {
              return of.weights == SharedWeights::kStage &&
                     std::ranges::find(of.stages, stage) != of.stages.end();
            });
        RC_ASSERT(reduction != plan.reductions.end());
        const std::vector<Rank> members = plan.MembersOf(*reduction, rank);
        RC_ASSERT(members.at(static_cast<size_t>(MemberOf(place))) == rank);
        for (const Rank replica : plan.ShardReplicasOf(rank, stage)) {
          const StageId copy =
              StagesOn(plan.train, *reduction, plan.PipelineRankOf(replica)).front();
          RC_ASSERT(plan.ShardPlaceOf(replica, copy).owner == place.owner);
          RC_ASSERT(std::ranges::find(members, replica) != members.end());
        }
      }
    }
  }));
}

// Rank = (pp 2 + d) 2 + c: both parts of a sequence have the weights, and one exports them.
TEST(JobPlan, RanksThatShareSequencesHaveTheSameWeights) {
  auto spec = Spec(2);
  auto& p = *spec.mutable_parallelism();
  p.set_dp(2);
  p.set_cp(2);
  p.set_zero_stage(3);
  auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->mesh.num_ranks(), 8);
  EXPECT_EQ(plan->batch.num_microbatches, 4) << "of each two ranks";
  EXPECT_EQ(plan->batch.context.num_ranks, 2);
  ASSERT_EQ(plan->reductions.size(), 2U);
  EXPECT_THAT(plan->MembersOf(plan->reductions[1], Rank(6)),
              ::testing::ElementsAre(Rank(4), Rank(5), Rank(6), Rank(7)));
  EXPECT_THAT(plan->OwnersOf(Rank(5)), ::testing::ElementsAre(Rank(4), Rank(5), Rank(6), Rank(7)));
  EXPECT_TRUE(plan->GathersUnits());
  for (int rank = 4; rank < 8; ++rank) {
    EXPECT_EQ(plan->ShardPlaceOf(Rank(rank), StageId(1)).owner, rank - 4);
    EXPECT_EQ(plan->Exports(Rank(rank), StageId(1)), rank == 4);
    EXPECT_EQ(plan->ShapeOf(StageId(1)).batch.gradient_groups, 4);
  }
  p.set_zero_group(2);
  plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_THAT(plan->OwnersOf(Rank(6)), ::testing::ElementsAre(Rank(6), Rank(7)));
  EXPECT_THAT(plan->ShardReplicasOf(Rank(6), StageId(1)), ::testing::ElementsAre(Rank(4), Rank(6)));
  EXPECT_TRUE(plan->RepeatsShards());

  const proto::JobSpec alone = SingleWorkerSpec(spec);
  EXPECT_FALSE(alone.parallelism().has_cp());
  const auto single = MakeJobPlan(alone);
  ASSERT_TRUE(single.ok()) << single.error().message;
  EXPECT_EQ(single->batch.num_microbatches, 8);
  EXPECT_EQ(single->batch.gradient_groups, 4);
}

// A group is of whole sequences.
TEST(JobPlan, RanksThatShareSequencesSumOneGroup) {
  auto spec = Spec(1);
  spec.mutable_parallelism()->set_cp(4);
  const auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->batch.gradient_groups, 1);
  EXPECT_EQ(plan->ShapeOf(StageId(0)).batch.gradient_groups, 1);
  spec.mutable_batch()->set_gradient_groups(2);
  EXPECT_THAT(MakeJobPlan(spec).error().message,
              HasSubstr("batch.gradient_groups = 2: with parallelism.cp = 4 every rank sums one"));
}

// Whatever is repeated or kept whole, every element of the model has one who votes for it.
TEST(JobPlan, EveryElementIsVotedForOnce) {
  EXPECT_TRUE(rc::check("any layout of ranks with the same weights", [] {
    const JobPlan plan = DrawnPlan();
    std::map<int, int64_t> votes;
    for (int r = 0; r < plan.mesh.num_ranks(); ++r) {
      for (const StageId stage : plan.StagesOf(Rank(r))) {
        if (!plan.Owns(Rank(r), stage)) continue;
        const ShardPlace place = plan.ShardPlaceOf(Rank(r), stage);
        const StageLayout& layout = plan.stages[static_cast<size_t>(stage.value)];
        const std::vector<int> owned = OwnedParametersOf(plan.table, layout);
        for (const ParameterRow& row : ShardRowsOf(plan.table, layout, place)) {
          for (const ParameterShard& shard : ShardsOf(plan.table, row, place)) {
            const bool first_use = std::ranges::binary_search(owned, shard.parameter);
            if (shard.is_first_copy && first_use) votes[shard.parameter] += shard.num_elements;
          }
        }
      }
    }
    for (int index = 0; index < plan.table.size(); ++index) {
      RC_ASSERT(votes[index] == plan.table[index].num_elements());
    }
  }));
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
  EXPECT_EQ(plan->ShardPlaceOf(Rank(3), StageId(1)).num_owners, 2);

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

// Where the order may depart from the list and weights are gathered; gradients are added once a
// step then.
TEST(JobPlan, AWeightGradientMayRunWhileAnotherActionWaitsForItsUnit) {
  struct Case {
    std::string schedule, executor;
    int zero_stage, open_actions;
  };
  for (const Case& c : {Case{"zb-h1", "guided", 3, 2}, Case{"zb-h1", "free-run", 3, 2},
                        Case{"zb-h1", "strict", 3, 1}, Case{"zb-h1", "guided", 2, 1},
                        Case{"1f1b", "guided", 3, 1}}) {
    auto spec = Spec(2);
    auto& keys = *spec.mutable_parallelism();
    keys.set_dp(2);
    keys.set_zero_stage(c.zero_stage);
    keys.set_grad_reduce("step");
    keys.set_schedule(c.schedule);
    keys.set_executor(c.executor);
    const auto plan = MakeJobPlan(spec);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    EXPECT_EQ(plan->policy.open_actions, c.open_actions) << c.schedule << " " << c.executor;
    EXPECT_EQ(plan->ShapeOf(StageId(0)).open_actions, c.open_actions);
  }
}

// 7.5 billion parameters.
proto::JobSpec LargeSpec() {
  auto spec = Spec(1);
  auto& model = *spec.mutable_model();
  model.set_hidden_size(4096);
  model.set_intermediate_size(11'008);
  model.set_num_hidden_layers(36);
  model.set_num_attention_heads(32);
  model.set_num_key_value_heads(32);
  model.set_vocab_size(32'000);
  return spec;
}

// Of params, grads and optimizer, for each parameter of the model.
double BytesAParameter(const JobPlan& plan, int rank) {
  const MemoryPrediction memory = plan.MemoryOf(Rank(rank), VectorIsa::kAvx512Bf16);
  int64_t states = 0;
  for (const MemoryTag tag : {MemoryTag::kParams, MemoryTag::kGrads, MemoryTag::kOptimizer}) {
    states += memory[static_cast<size_t>(tag)];
  }
  return static_cast<double>(states) / static_cast<double>(plan.table.num_elements());
}

// The lecture's figures, with N = 64: bfloat16 with float32 masters and gradients 18, 6 + 12/N,
// 2 + 16/N and 18/N bytes a parameter, with bfloat16 gradients 16, 4 + 12/N, 2 + 14/N, 16/N.
TEST(JobPlan, ALargeModelTakesTheBytesOfItsZeroStage) {
  auto spec = LargeSpec();
  spec.mutable_batch()->set_global_batch_size(256);
  spec.mutable_train()->set_dtype("bfloat16");
  spec.mutable_parallelism()->set_dp(64);
  for (const bool narrow : {false, true}) {
    spec.mutable_train()->set_grad_dtype(narrow ? "bfloat16" : "float32");
    const double grads = narrow ? 2 : 4;
    const double bytes[] = {14 + grads, 2 + grads + 12.0 / 64, 2 + (12 + grads) / 64,
                            (14 + grads) / 64};
    for (int stage = 0; stage < 4; ++stage) {
      spec.mutable_parallelism()->set_zero_stage(stage);
      const auto plan = MakeJobPlan(spec);
      ASSERT_TRUE(plan.ok()) << plan.error().message;
      EXPECT_NEAR(static_cast<double>(plan->table.num_elements()), 7.5e9, 0.1e9);
      for (const int rank : {0, 31, 63}) {
        EXPECT_NEAR(BytesAParameter(*plan, rank), bytes[stage], 0.01 * bytes[stage])
            << "stage " << stage << ", rank " << rank;
      }
    }
  }
}

// With N that share shards: a copy that products read, C of its bytes (0 in float32, whose master
// is read), masters, moments and gradients of G: C + 12 + G, then what is whole beside what is an
// Nth. Groups that repeat shards and norms that persist change nothing that is seen in a percent.
TEST(JobPlan, BytesOfEachNumberOfOwnersAreTheirFormula) {
  constexpr int kEveryWorld = 840;  // a multiple of 1 to 8
  auto spec = LargeSpec();
  for (const auto& [dtype, grad_dtype] :
       {std::pair("bfloat16", "bfloat16"), std::pair("bfloat16", "float32"),
        std::pair("float32", "float32"), std::pair("float32", "bfloat16")}) {
    spec.mutable_train()->set_dtype(dtype);
    spec.mutable_train()->set_grad_dtype(grad_dtype);
    const double copy = std::string(dtype) == "bfloat16" ? 2 : 0;
    const double grads = std::string(grad_dtype) == "bfloat16" ? 2 : 4;
    const double read = copy > 0 ? copy : 4;  // of weights that products read
    const double state = copy > 0 ? 12 : 8;   // of masters beside them, and moments
    for (int n = 1; n <= 8; ++n) {
      const double bytes[] = {read + grads + state, read + grads + state / n,
                              read + (grads + state) / n, (read + grads + state) / n};
      for (const int copies : {1, 2}) {
        spec.mutable_batch()->set_global_batch_size(2 * kEveryWorld * copies);
        spec.mutable_parallelism()->set_dp(n * copies);
        spec.mutable_parallelism()->set_zero_group(n);
        spec.mutable_parallelism()->set_persist_elements(copies == 1 ? 0 : 100'000);
        for (int stage = 0; stage < 4; ++stage) {
          spec.mutable_parallelism()->set_zero_stage(stage);
          const auto plan = MakeJobPlan(spec);
          ASSERT_TRUE(plan.ok()) << plan.error().message;
          for (const int rank : {0, n * copies - 1}) {
            EXPECT_NEAR(BytesAParameter(*plan, rank), bytes[stage], 0.01 * bytes[stage])
                << dtype << " " << grad_dtype << " stage " << stage << " N " << n;
          }
        }
      }
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

// Those that share a copy of the weights and those that repeat a shard meet by themselves, too.
TEST(JobPlan, GroupsThatRepeatShardsHaveSlotsOfTheirOwn) {
  auto spec = Spec(1);
  spec.mutable_parallelism()->set_dp(4);
  spec.mutable_parallelism()->set_zero_stage(1);
  const auto comm = [&spec](int group) {
    spec.mutable_parallelism()->set_zero_group(group);
    const auto plan = MakeJobPlan(spec);
    CHECK(plan.ok(), "{}", plan.error().message);
    const auto bytes = plan->MemoryOf(Rank(1), VectorIsa::kAvx2);
    return bytes[static_cast<size_t>(MemoryTag::kComm)] - kLendingPageBytes;
  };
  EXPECT_EQ(comm(4), 2 * 3 * kReductionSlots * kReductionBlockBytes);
  EXPECT_EQ(comm(1), comm(4)) << "nothing is in shards";
  EXPECT_EQ(comm(2), 2 * (3 + 1 + 1) * kReductionSlots * kReductionBlockBytes);
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

// What a step's sum is kept in decides its bits; how ranks share out and add up does not.
TEST(JobPlan, TheReferenceRoundsGradientsAsTheRunDoes) {
  auto spec = Spec(2);
  spec.mutable_parallelism()->set_dp(4);
  spec.mutable_parallelism()->set_bucket_bytes(100);
  spec.mutable_train()->set_grad_dtype("bfloat16");
  spec.mutable_data_parallel()->set_algorithm("reduce-broadcast");
  const auto plan = MakeJobPlan(spec);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->reduction, ReductionAlgorithm::kChain);
  EXPECT_EQ(plan->bucket_bytes, 100);
  EXPECT_TRUE(plan->ShapeOf(StageId(0)).has_buckets());
  const proto::JobSpec alone = SingleWorkerSpec(spec);
  EXPECT_FALSE(alone.has_data_parallel());
  EXPECT_FALSE(alone.parallelism().has_bucket_bytes());
  const auto single = MakeJobPlan(alone);
  ASSERT_TRUE(single.ok()) << single.error().message;
  EXPECT_EQ(single->widths.grad_bytes, 2);
  EXPECT_EQ(single->batch.gradient_groups, 4);
  EXPECT_EQ(single->reduction, ReductionAlgorithm::kOrdered);
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
