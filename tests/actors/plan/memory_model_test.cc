#include "actors/plan/memory_model.h"

#include <gtest/gtest.h>

#include "actors/plan/gradient_piece.h"
#include "actors/plan/kernel_memory.h"

namespace troupe {
namespace {

StageShape Shape(int stage, int num_stages, bool tied = false) {
  StageShape s;
  s.model = ModelConfig{.hidden_size = 64,
                        .intermediate_size = 96,
                        .num_hidden_layers = 4,
                        .num_attention_heads = 4,
                        .num_key_value_heads = 2,
                        .head_dim = 16,
                        .vocab_size = 100,
                        .tie_word_embeddings = tied};
  s.layout = {.stage = stage,
              .num_stages = num_stages,
              .first_layer = stage * 4 / num_stages,
              .num_layers = 4 / num_stages};
  s.batch = {.micro_batch_size = 2, .global_batch_size = 8, .seq_len = 32, .num_microbatches = 4};
  return s;
}

int64_t At(const MemoryPrediction& prediction, MemoryTag tag) {
  return prediction[static_cast<size_t>(tag)];
}

// Per layer: q and o 64x64, k and v 32x64, three of the MLP 96x64, two norms.
constexpr int64_t kLayerElements = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 2 * 64;

TEST(MemoryModel, CountsStatesToTheByte) {
  const StageShape s = Shape(0, 1);
  const ParameterTable table(s.model);
  const int64_t elements = 4 * kLayerElements + 2 * 100 * 64 + 64;
  const MemoryPrediction bytes = PredictMemory(table, {.shape = s});
  EXPECT_EQ(At(bytes, MemoryTag::kParams), 4 * elements);
  EXPECT_EQ(At(bytes, MemoryTag::kGrads), 4 * elements);
  EXPECT_EQ(At(bytes, MemoryTag::kOptimizer), 8 * elements);
}

TEST(MemoryModel, BFloat16KeepsMastersAndACopy) {
  StageShape s = Shape(0, 1);
  const ParameterTable table(s.model);
  const MemoryPrediction wide = PredictMemory(table, {.shape = s});
  s.widths = *WidthsOf("bfloat16");
  const MemoryPrediction narrow = PredictMemory(table, {.shape = s});
  EXPECT_EQ(2 * At(narrow, MemoryTag::kParams), 3 * At(wide, MemoryTag::kParams));
  EXPECT_EQ(At(narrow, MemoryTag::kGrads), At(wide, MemoryTag::kGrads));
  EXPECT_EQ(At(narrow, MemoryTag::kOptimizer), At(wide, MemoryTag::kOptimizer));
  EXPECT_LT(At(narrow, MemoryTag::kActivations), At(wide, MemoryTag::kActivations));
}

TEST(MemoryModel, GradientGroupsNeedASecondBuffer) {
  StageShape s = Shape(0, 1);
  const ParameterTable table(s.model);
  const int64_t one = At(PredictMemory(table, {.shape = s}), MemoryTag::kGrads);
  s.batch.gradient_groups = 2;
  EXPECT_EQ(At(PredictMemory(table, {.shape = s}), MemoryTag::kGrads), 2 * one);
}

// Each microbatch is summed in a bucket, so groups of one need no second sum.
TEST(MemoryModel, AGroupOfOneMicrobatchIsItsBucket) {
  StageShape s = Shape(0, 1);
  const ParameterTable table(s.model);
  const MemoryPrediction step = PredictMemory(table, {.shape = s});
  s.batch.grad_reduce = GradReduce::kMicrobatch;
  for (const int groups : {1, 2, 4}) {
    s.batch.gradient_groups = groups;
    const MemoryPrediction each = PredictMemory(table, {.shape = s});
    EXPECT_EQ(At(each, MemoryTag::kGrads), (groups == 2 ? 2 : 1) * At(step, MemoryTag::kGrads));
    EXPECT_EQ(At(each, MemoryTag::kComm) - At(step, MemoryTag::kComm), 4 * kLayerElements)
        << "one bucket of the largest piece, a layer";
  }
}

// Bytes of the four stages to the byte, for any owner; with a tied weight, whose uses have sums of
// their own.
TEST(MemoryModel, EachZeroStageSharesOutMore) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    StageShape s = Shape(0, 1, /*tied=*/true);
    s.widths = *WidthsOf(dtype);
    s.batch.data_parallel = 3;
    const ParameterTable table(s.model);
    const int64_t all = table.num_elements();
    const int64_t sums = all + 100 * 64;
    const bool copies = s.widths.has_compute_copy();
    for (int owner = 0; owner < 3; ++owner) {
      const ShardPlace place{.owner = owner, .num_owners = 3};
      const int64_t own = OwnedElements(table, s.layout, place);
      const int64_t own_sums = GradientElements(table, s.layout, place);
      EXPECT_LT(own_sums, sums / 2);
      EXPECT_GE(own_sums, own);
      for (const int stage : {1, 2, 3}) {
        for (const GradReduce reduce : {GradReduce::kStep, GradReduce::kMicrobatch}) {
          const bool each = reduce == GradReduce::kMicrobatch;
          s.zero.stage = stage;
          s.batch.grad_reduce = reduce;
          s.batch.gradient_groups = each ? s.batch.num_microbatches : 1;
          const MemoryPrediction bytes = PredictMemory(table, {.shape = s, .shards = place});
          const int64_t read = stage == 3 ? own : all;
          EXPECT_EQ(At(bytes, MemoryTag::kParams), copies ? 4 * own + 2 * read : 4 * read);
          EXPECT_EQ(At(bytes, MemoryTag::kGrads), 4 * (each ? own_sums : sums));
          EXPECT_EQ(At(bytes, MemoryTag::kOptimizer), 8 * own);
          EXPECT_EQ(At(bytes, MemoryTag::kComm), each ? kGradientBuckets * 4 * kLayerElements : 0);
        }
      }
    }
  }
}

// What a microbatch adds is computed as wide as a master, in a bucket, and rounded there.
TEST(MemoryModel, NarrowGradientsAreSummedInHalfTheBytes) {
  StageShape s = Shape(0, 1);
  const ParameterTable table(s.model);
  const int64_t elements = table.num_elements();
  const MemoryPrediction wide = PredictMemory(table, {.shape = s});
  s.widths.grad_bytes = 2;
  for (const int groups : {1, 2, 4}) {
    s.batch.gradient_groups = groups;
    const MemoryPrediction narrow = PredictMemory(table, {.shape = s});
    EXPECT_EQ(At(narrow, MemoryTag::kGrads), (groups == 2 ? 2 : 1) * 2 * elements);
    EXPECT_EQ(At(narrow, MemoryTag::kComm) - At(wide, MemoryTag::kComm), 4 * kLayerElements);
    EXPECT_EQ(At(narrow, MemoryTag::kParams), At(wide, MemoryTag::kParams));
    EXPECT_EQ(At(narrow, MemoryTag::kOptimizer), At(wide, MemoryTag::kOptimizer));
  }
  s.batch.data_parallel = 2;
  s.batch.gradient_groups = 1;
  EXPECT_EQ(At(PredictMemory(table, {.shape = s}), MemoryTag::kComm), 4 * kLayerElements)
      << "added up over ranks once: one bucket is enough";
  s.weight_parts = true;
  EXPECT_EQ(At(PredictMemory(table, {.shape = s, .peak_microbatches = 3}), MemoryTag::kComm),
            (3 + 1) * 4 * kLayerElements)
      << "between two parts a microbatch's stays open";
  s.batch.grad_reduce = GradReduce::kMicrobatch;
  s.batch.gradient_groups = 4;
  const ShardPlace place{.owner = 1, .num_owners = 2};
  s.zero.stage = 2;
  const MemoryPrediction shared = PredictMemory(table, {.shape = s, .shards = place});
  EXPECT_EQ(At(shared, MemoryTag::kGrads), 2 * OwnedElements(table, s.layout, place));
  EXPECT_EQ(At(shared, MemoryTag::kComm), kGradientBuckets * 4 * kLayerElements);
}

// Norms are whole at every owner: of their own, and not among what is gathered.
TEST(MemoryModel, WhatPersistsIsNoOnesShare) {
  StageShape s = Shape(0, 1);
  s.zero = {.stage = 3, .prefetch = 0, .persist_elements = 65};
  s.batch.data_parallel = 2;
  s.batch.grad_reduce = GradReduce::kMicrobatch;
  s.batch.gradient_groups = s.batch.num_microbatches;
  const ParameterTable table(s.model);
  constexpr int64_t kNorms = (2 * 4 + 1) * 64;
  int64_t sum = 0;
  for (int owner = 0; owner < 2; ++owner) {
    const ShardPlace place{.owner = owner, .num_owners = 2, .persist_elements = 65};
    const MemoryPrediction bytes = PredictMemory(table, {.shape = s, .shards = place});
    EXPECT_EQ(At(bytes, MemoryTag::kParams), At(bytes, MemoryTag::kGrads));
    EXPECT_EQ(At(bytes, MemoryTag::kOptimizer), 2 * At(bytes, MemoryTag::kGrads));
    EXPECT_EQ(At(bytes, MemoryTag::kComm), kGradientBuckets * 4 * kLayerElements)
        << "a layer's gradients are complete at once, and lie in one bucket";
    sum += At(bytes, MemoryTag::kParams);
  }
  EXPECT_EQ(sum, 4 * (table.num_elements() + kNorms));
  const int64_t two_layers = 2 * 4 * (kLayerElements - 2 * 64);
  EXPECT_EQ(At(PredictGatheredUnits(table, {&s, 1}, VectorIsa::kAvx2), MemoryTag::kComm),
            two_layers);
}

TEST(MemoryModel, AStageThatUnshardsHasAllItsUnits) {
  std::vector<StageShape> stages = {Shape(0, 4), Shape(2, 4)};
  for (StageShape& s : stages) s.zero = {.stage = 3, .prefetch = 0};
  stages[1].unshards = true;
  const ParameterTable table(stages.front().model);
  const auto comm = [&] {
    return At(PredictGatheredUnits(table, stages, VectorIsa::kAvx2), MemoryTag::kComm);
  };
  EXPECT_EQ(comm(), 4 * (kLayerElements + 100 * 64 + kLayerElements));
  stages[0].unshards = true;
  EXPECT_EQ(comm(), 4 * (kLayerElements + 100 * 64 + kLayerElements));
  stages[0] = Shape(0, 1);
  stages[0].zero = {.stage = 3, .prefetch = 0};
  EXPECT_EQ(comm(), 4 * (2 * kLayerElements + kLayerElements)) << "two of the largest beside it";
}

TEST(MemoryModel, GatheredUnitsAreThoseOfOpenActions) {
  StageShape s = Shape(0, 1, /*tied=*/true);
  s.zero.stage = 3;
  const ParameterTable table(s.model);
  constexpr auto kIsa = VectorIsa::kAvx2;
  const auto predicted = [&](MemoryTag tag, int prefetch, int open_actions = 1) {
    s.zero.prefetch = prefetch;
    s.open_actions = open_actions;
    return At(PredictGatheredUnits(table, {&s, 1}, kIsa), tag);
  };
  const int64_t head = 100 * 64 + 64;
  constexpr auto kComm = MemoryTag::kComm;
  EXPECT_EQ(predicted(kComm, 0), 2 * 4 * kLayerElements) << "the embedding and the first layer";
  EXPECT_EQ(predicted(kComm, 1), 2 * 4 * kLayerElements);
  EXPECT_EQ(predicted(kComm, 1, /*open_actions=*/2), 4 * 4 * kLayerElements);
  EXPECT_EQ(predicted(kComm, 4), 4 * (4 * kLayerElements + head)) << "the embedding is in the head";
  const int64_t every_unit = 4 * (4 * kLayerElements + head + 100 * 64);
  EXPECT_EQ(predicted(kComm, 5), every_unit);
  EXPECT_EQ(predicted(kComm, 9), every_unit) << "there are no more";
  // Packed copies are those units', too: all of them are what a stage has that gathers none.
  EXPECT_EQ(predicted(MemoryTag::kWorkspace, 9), PackedWeightsBytes(s, kIsa));
  EXPECT_EQ(predicted(MemoryTag::kWorkspace, 0), 2 * PackedWeightsBytes(s, /*unit=*/1, kIsa));
  const int64_t kept = At(PredictMemory(table, {.shape = s, .isa = kIsa}), MemoryTag::kWorkspace);
  s.zero.stage = 2;
  EXPECT_EQ(At(PredictMemory(table, {.shape = s, .isa = kIsa}), MemoryTag::kWorkspace) - kept,
            PackedWeightsBytes(s, kIsa));
  s.zero = {.stage = 3, .prefetch = 0, .reshard_after_forward = false};
  EXPECT_EQ(At(PredictGatheredUnits(table, {&s, 1}, kIsa), kComm), every_unit) << "all stay";
}

// An action has units of its own stage, and ahead those of the next one's.
TEST(MemoryModel, StagesOfARankGatherForOneAnother) {
  std::vector<StageShape> stages = {Shape(0, 4), Shape(2, 4)};
  for (StageShape& s : stages) s.zero.stage = 3;
  const ParameterTable table(stages.front().model);
  const auto gathered = [&] {
    return At(PredictGatheredUnits(table, stages, VectorIsa::kAvx2), MemoryTag::kComm);
  };
  EXPECT_EQ(gathered(), 4 * 2 * kLayerElements);
  for (StageShape& s : stages) s.open_actions = 2;
  EXPECT_EQ(gathered(), 4 * (2 * kLayerElements + 100 * 64));
}

TEST(MemoryModel, ATiedWeightHasAnAccumulatorPerUse) {
  const StageShape one = Shape(0, 1, /*tied=*/true);
  const ParameterTable table(one.model);
  EXPECT_EQ(GradientElements(table, one.layout), table.num_elements() + 100 * 64);
  // Apart, each stage holds the weight with one use.
  const StageShape first = Shape(0, 2, true);
  EXPECT_EQ(GradientElements(table, first.layout), 2 * kLayerElements + 100 * 64);
}

TEST(MemoryModel, ActivationsGrowWithMicrobatchesInFlightAndHalves) {
  StageShape s = Shape(1, 4);
  const ParameterTable table(s.model);
  const auto activations = [&](int peak) {
    return At(PredictMemory(table, {.shape = s, .peak_microbatches = peak}),
              MemoryTag::kActivations);
  };
  const int64_t one = activations(1);
  // x, n1, mid, n2, out (64 each), qkv 128, gate and up 192 a token; two rstd, four lse; the
  // position.
  EXPECT_EQ(one, 64 * 4 * (5 * 64 + 128 + 192 + 2 + 4 + 1));
  EXPECT_EQ(activations(3), 3 * one);
  s.halves = true;
  EXPECT_EQ(activations(1), one + 64 * 4 * (2 * 64 + 192 + 128));
}

TEST(MemoryModel, CommunicationIsSlotsInWholePagesAndOutputs) {
  StageShape s = Shape(1, 4);
  const ParameterTable table(s.model);
  const MemoryPrediction bytes = PredictMemory(
      table, {.shape = s, .receive_slots = 3, .outputs_in_flight = 2, .shared_bytes = 7 * 4096});
  EXPECT_EQ(At(bytes, MemoryTag::kComm), 5 * 64 * 64 * 4 + 7 * 4096);
  s.batch.seq_len = 10;  // 5,120 bytes: 2 pages
  EXPECT_EQ(At(PredictMemory(table, {.shape = s, .receive_slots = 3, .outputs_in_flight = 2}),
               MemoryTag::kComm),
            3 * 2 * 4096 + 2 * 5120);
}

TEST(MemoryModel, EachOpenActionHasAWorkspaceAndConstantsAreShared) {
  StageShape s = Shape(1, 4);
  const ParameterTable table(s.model);
  const auto workspace = [&](int open_actions) {
    s.open_actions = open_actions;
    return At(PredictMemory(table, {.shape = s}), MemoryTag::kWorkspace);
  };
  // A token's numbers of 64 columns: dy, dmid, delta, dout, dx; dgate_up 192, dqkv 128, product and
  // dproduct 96.
  const int64_t of_action = 64 * 4 * (5 * 64 + 192 + 128 + 2 * 96);
  EXPECT_EQ(workspace(2) - workspace(1), of_action);
  EXPECT_EQ(workspace(3) - workspace(1), 2 * of_action);
  const WorkspaceLayout layout = WorkspaceLayoutOf(s, 640);
  EXPECT_EQ(layout.action_bytes, of_action);
  // The rotary table and the kernels' scratch.
  EXPECT_EQ(layout.shared_bytes, 32 * 16 * 4 + 640);
  EXPECT_EQ(layout.kernels, layout.shared_bytes - 640);
}

TEST(MemoryModel, ChunksOfTheHeadAreBounded) {
  EXPECT_EQ(ChunkTokens(128'256, 4096), 16);
  EXPECT_EQ(ChunkTokens(32'000, 4096), 32);
  EXPECT_EQ(ChunkTokens(256, 100), 100);
}

TEST(MemoryModel, RefusesUnknownDtypes) {
  const auto widths = WidthsOf("float8");
  ASSERT_FALSE(widths.ok());
  EXPECT_NE(widths.error().message.find("train.dtype"), std::string::npos);
}

}  // namespace
}  // namespace troupe
