// What the products of a unit read, dropped and made again.
#include "actors/model/unit_weights.h"

#include <gtest/gtest.h>

#include "tests/support/small_model.h"

namespace troupe {
namespace {

using testing::SmallModel;
using testing::StageChain;

int64_t Current(StageChain& chain, MemoryTag tag) {
  return chain.ledger(0).Snapshot().current_bytes[static_cast<size_t>(tag)];
}

// Losses, gradients and weights of two steps; every unit goes and comes back where `drops`.
std::string Train(const SmallModel& model, bool drops) {
  StageChain chain(model);
  const auto drop_and_make = [&] {
    if (!drops) return;
    for (size_t i = 0; i < chain.num_stages(); ++i) {
      const StageShape& shape = chain.stage(i).options().shape;
      for (const int unit : UnitsOf(shape.model, shape.layout)) {
        chain.stage(i).DropUnit(unit);
        chain.stage(i).ReadyUnit(unit);
      }
    }
  };
  std::string bytes;
  for (int step = 1; step <= 2; ++step) {
    drop_and_make();
    bytes += std::to_string(chain.Forward(0));
    drop_and_make();
    chain.Backward(0);
    chain.RunStep();
    bytes += chain.GradientBytes();
    chain.Update({.lr = 0.01, .grad_factor = 0.01, .step = step});
  }
  return bytes + chain.WeightBytes();
}

TEST(UnitWeights, ThatAreMadeAgainHaveTheirBits) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool tied : {false, true}) {
      SmallModel model;
      model.dtype = dtype;
      model.config.tie_word_embeddings = tied;
      EXPECT_EQ(Train(model, true), Train(model, false)) << DTypeName(dtype) << " " << tied;
    }
  }
}

TEST(UnitWeights, GiveTheirMemoryBack) {
  SmallModel model;
  model.dtype = DType::kBFloat16;
  StageChain chain(model);
  const int layer = model.Spec().layer_unit(1);
  const int64_t params = Current(chain, MemoryTag::kParams);
  const int64_t packed = Current(chain, MemoryTag::kWorkspace);
  chain.stage(0).DropUnit(layer);
  int64_t elements = 0;
  for (const int index : chain.table().OfUnit(layer)) {
    elements += chain.table()[index].num_elements();
  }
  EXPECT_EQ(Current(chain, MemoryTag::kParams), params - 2 * elements);
  EXPECT_LT(Current(chain, MemoryTag::kWorkspace), packed);
  chain.stage(0).ReadyUnit(layer);
  EXPECT_EQ(Current(chain, MemoryTag::kParams), params);
  EXPECT_EQ(Current(chain, MemoryTag::kWorkspace), packed);
}

// The optimizer changes the masters of units that are absent too.
TEST(UnitWeights, AreMadeOfTheMastersAsTheyAre) {
  const auto weights = [](bool drops) {
    SmallModel model;
    model.dtype = DType::kBFloat16;
    StageChain chain(model);
    const int layer = model.Spec().layer_unit(2);
    chain.RunStep();
    if (drops) chain.stage(0).DropUnit(layer);
    chain.Update({.lr = 0.01, .grad_factor = 0.01});
    if (drops) chain.stage(0).ReadyUnit(layer);
    const double loss = chain.RunStep();
    return std::pair(loss, chain.GradientBytes());
  };
  EXPECT_EQ(weights(true), weights(false));
}

TEST(UnitWeightsDeathTest, APassOverAnAbsentUnitNamesIt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  SmallModel model;
  StageChain chain(model);
  chain.stage(0).DropUnit(model.Spec().layer_unit(1));
  EXPECT_DEATH(chain.Forward(0), "a pass over layer 1, whose weights are absent");
  chain.stage(0).ReadyUnit(model.Spec().layer_unit(1));
  chain.stage(0).DropUnit(model.Spec().head_unit());
  EXPECT_DEATH(chain.Forward(0), "a pass over the head, whose weights are absent");
}

}  // namespace
}  // namespace troupe
