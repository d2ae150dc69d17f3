// What a backward computes again instead of keeping it: the same bits, and less to keep.
#include <gtest/gtest.h>

#include "tests/support/small_model.h"

namespace troupe {
namespace {

using testing::SmallModel;
using testing::StageChain;

constexpr Recompute kAll[] = {Recompute::kNone, Recompute::kAttention, Recompute::kFull};

std::string Train(SmallModel model, Recompute recompute, int num_parts = 1) {
  model.recompute = recompute;
  StageChain chain(model);
  std::string bytes;
  for (int step = 1; step <= 2; ++step) {
    bytes += std::to_string(chain.RunStep(num_parts));
    bytes += chain.GradientBytes();
    chain.Update({.lr = 0.01, .grad_factor = 0.01, .step = step});
  }
  return bytes + chain.WeightBytes();
}

TEST(Recompute, ComputesTheSameBits) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int num_stages : {1, 3}) {
      SmallModel model{.dtype = dtype, .num_stages = num_stages};
      model.random_positions = true;
      const std::string kept = Train(model, Recompute::kNone);
      for (const Recompute recompute : {Recompute::kAttention, Recompute::kFull}) {
        EXPECT_EQ(Train(model, recompute), kept) << RecomputeName(recompute);
        SmallModel halves = model;
        halves.halves = true;
        EXPECT_EQ(Train(halves, recompute), kept) << RecomputeName(recompute) << " in halves";
        EXPECT_EQ(Train(halves, recompute, 3), kept) << RecomputeName(recompute) << " in parts";
      }
    }
  }
}

TEST(Recompute, ComputesTheSameBitsWhereMicrobatchesAreUnderWayTogether) {
  SmallModel model;
  std::string kept;
  for (const Recompute recompute : kAll) {
    model.recompute = recompute;
    StageChain chain(model);
    for (const int32_t microbatch : {0, 1}) chain.Forward(microbatch);
    for (const int32_t microbatch : {0, 1}) chain.Backward(microbatch);
    if (recompute == Recompute::kNone) kept = chain.GradientBytes();
    EXPECT_EQ(chain.GradientBytes(), kept) << RecomputeName(recompute);
  }
}

int64_t Of(const MemoryPrediction& bytes, MemoryTag tag) { return bytes[static_cast<size_t>(tag)]; }

TEST(Recompute, MemoryIsWhatTheModelPredicts) {
  for (const bool halves : {false, true}) {
    int64_t before = 0;
    for (const Recompute recompute : kAll) {
      SmallModel model{.num_stages = 2, .halves = halves, .recompute = recompute};
      StageChain chain(model);
      chain.RunStep();
      for (size_t i = 0; i < chain.num_stages(); ++i) {
        const MemoryPrediction predicted = PredictMemory(
            chain.table(), {.shape = chain.stage(i).options().shape, .isa = ThisVectorIsa()});
        const MemoryPrediction used = chain.ledger(i).Snapshot().peak_bytes;
        for (const MemoryTag tag : {MemoryTag::kActivations, MemoryTag::kWorkspace}) {
          EXPECT_EQ(Of(used, tag), Of(predicted, tag))
              << MemoryTagName(tag) << " of stage " << i << ", " << RecomputeName(recompute);
        }
        if (i > 0) continue;
        const int64_t kept = Of(predicted, MemoryTag::kActivations);
        if (recompute != Recompute::kNone && !halves) {
          EXPECT_LT(kept, before) << RecomputeName(recompute);
        }
        if (recompute != Recompute::kNone && halves) {
          EXPECT_EQ(kept, before) << "nothing is saved where backward comes in halves";
        }
        before = kept;
      }
    }
  }
}

// Of a layer no more than its input, beside what the batch and the head keep.
TEST(Recompute, FullKeepsALayersInput) {
  SmallModel model;
  StageShape shape{.model = model.Spec(),
                   .layout = {.stage = 1, .num_stages = 3, .first_layer = 1, .num_layers = 1},
                   .batch = model.batch,
                   .recompute = Recompute::kFull};
  const StashLayout stash = StashLayoutOf(shape);
  const UnitPlaces& layer = stash.units.front();
  EXPECT_TRUE(layer.Has("x"));
  for (const std::string_view name : {"n1", "rstd1", "qkv", "out", "lse", "mid", "n2", "gate_up"}) {
    EXPECT_FALSE(layer.Has(name)) << name;
  }
  shape.recompute = Recompute::kAttention;
  const StashLayout attention = StashLayoutOf(shape);
  for (const std::string_view name : {"x", "n1", "mid", "n2", "gate_up"}) {
    EXPECT_TRUE(attention.units.front().Has(name)) << name;
  }
  for (const std::string_view name : {"qkv", "out", "lse"}) {
    EXPECT_FALSE(attention.units.front().Has(name)) << name;
  }
}

}  // namespace
}  // namespace troupe
