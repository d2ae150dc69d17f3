#include "actors/model/gradient_sum.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

void AddTo(GradientSum& sum, int accumulator, int32_t microbatch, float value) {
  const Exec exec;
  const TensorView target = sum.Target(exec, accumulator, microbatch);
  for (int64_t i = 0; i < target.num_elements(); ++i) target.as<float>()[i] += value;
}

// Numbers whose float32 sum depends on the order show which one was taken.
float Value(int32_t microbatch) { return microbatch % 2 == 0 ? 1e8f : 3.1f; }

TEST(GradientSum, OneGroupSumsInOrder) {
  MemoryLedger ledger;
  GradientSum sum({.num_elements = 3, .num_microbatches = 5}, ledger);
  const int a = sum.AddAccumulator(0, 2);
  float expected = 0;
  for (int32_t m = 0; m < 5; ++m) {
    AddTo(sum, a, m, Value(m));
    expected += Value(m);
  }
  sum.Finish({});
  EXPECT_EQ(sum.Sum(1, 1).as<float>()[0], expected);
  EXPECT_EQ(sum.Sum(2, 1).as<float>()[0], 0);
  EXPECT_EQ(ledger.Snapshot().current_bytes[static_cast<size_t>(MemoryTag::kGrads)], 12);
}

TEST(GradientSum, GroupsAreSummedThenAdded) {
  MemoryLedger ledger;
  GradientSum sum({.num_elements = 2, .num_microbatches = 6, .groups = 3}, ledger);
  const int a = sum.AddAccumulator(0, 1);
  const int b = sum.AddAccumulator(1, 1);
  float total = 0;
  for (int32_t m = 0; m < 6; m += 2) total += Value(m) + Value(m + 1);
  // b runs ahead of a, as parts of a weight gradient may.
  for (int32_t m = 0; m < 6; ++m) AddTo(sum, b, m, Value(m));
  for (int32_t m = 0; m < 6; ++m) AddTo(sum, a, m, Value(m));
  sum.Finish({});
  sum.Finish({});
  EXPECT_EQ(sum.Sum(0, 1).as<float>()[0], total);
  EXPECT_EQ(sum.Sum(1, 1).as<float>()[0], total);
  sum.Reset({});
  AddTo(sum, a, 0, 2.0f);
  sum.Finish({});
  EXPECT_EQ(sum.Sum(0, 1).as<float>()[0], 2.0f);
  EXPECT_EQ(sum.Sum(1, 1).as<float>()[0], 0.0f);
}

}  // namespace
}  // namespace troupe
