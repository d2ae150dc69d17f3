#include "kernels/rotary.h"

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

constexpr Tolerance kRotary{.float32 = 1e-6, .bfloat16 = 5e-3};

TestTensor TableFor(DType dtype, int64_t positions, int64_t head_dim) {
  TestTensor table(dtype, {positions, head_dim});
  BuildRotaryTable(table, {.head_dim = head_dim});
  return table;
}

TEST(RotaryTest, AgreesWithTheSpecification) {
  for (const int64_t head_dim : {2, 6, 16, 34, 64, 128}) {
    for (const DType dtype : FastDTypes()) {
      TestTensor x(dtype, {5, 3, head_dim}, 7), positions(DType::kInt32, {5});
      x.Normal(1);
      positions.Integers(2, 40);
      TestTensor reference = x.As(DType::kFloat64);
      const TestTensor before = x;
      RotaryForward(TestExec(), x, positions, TableFor(DType::kFloat32, 40, head_dim));
      RotaryForward(TestExec(), reference, positions, TableFor(DType::kFloat64, 40, head_dim));
      ExpectClose(x, reference, kRotary, "turned");
      RotaryBackward(TestExec(), x, positions, TableFor(DType::kFloat32, 40, head_dim));
      ExpectClose(x, before.As(DType::kFloat64), {1e-6, 1e-2}, "turned back");
    }
  }
}

// The half-split layout turns channel i with channel i + D/2, here by hand.
TEST(RotaryTest, TurnsPairsOfTheTwoHalves) {
  TestTensor x(DType::kFloat64, {1, 1, 4}), positions(DType::kInt32, {1});
  for (int64_t i = 0; i < 4; ++i) x.Set(0, i, static_cast<double>(i + 1));
  *positions.view().as<int32_t>() = 3;
  RotaryForward(TestExec(), x, positions, TableFor(DType::kFloat64, 4, 4));
  const double slow = 3.0 / 100.0;
  EXPECT_NEAR(x.At(0, 0), 1 * std::cos(3.0) - 3 * std::sin(3.0), 1e-15);
  EXPECT_NEAR(x.At(0, 2), 3 * std::cos(3.0) + 1 * std::sin(3.0), 1e-15);
  EXPECT_NEAR(x.At(0, 1), 2 * std::cos(slow) - 4 * std::sin(slow), 1e-15);
  EXPECT_NEAR(x.At(0, 3), 4 * std::cos(slow) + 2 * std::sin(slow), 1e-15);
}

// Products of turned queries and keys depend on the distance alone.
TEST(RotaryTest, KeepsRelativePositions) {
  const TestTensor table = TableFor(DType::kFloat64, 50, 8);
  const auto score = [&](int32_t query_position, int32_t key_position) {
    TestTensor q(DType::kFloat64, {1, 1, 8}), k(DType::kFloat64, {1, 1, 8});
    q.Normal(1);
    k.Normal(2);
    TestTensor at(DType::kInt32, {1});
    *at.view().as<int32_t>() = query_position;
    RotaryForward(TestExec(), q, at, table);
    *at.view().as<int32_t>() = key_position;
    RotaryForward(TestExec(), k, at, table);
    return Inner(q, k);
  };
  EXPECT_NEAR(score(7, 3), score(44, 40), 1e-12);
  EXPECT_GT(std::abs(score(7, 3) - score(7, 4)), 1e-3);
}

// Llama 3's scaling: short wavelengths stay, long ones stretch by the factor, between is smooth.
TEST(RotaryTest, Llama3ScalingBendsLowFrequencies) {
  const RotaryConfig plain{.head_dim = 128, .theta = 500000.0};
  RotaryConfig scaled = plain;
  scaled.has_llama3_scaling = true;
  int between = 0;
  for (int64_t i = 0; i < 64; ++i) {
    const double frequency = RotaryFrequency(plain, i);
    const double wavelength = 2 * M_PI / frequency;
    const double ratio = frequency / RotaryFrequency(scaled, i);
    if (wavelength < 8192.0 / 4) {
      EXPECT_EQ(ratio, 1.0);
    } else if (wavelength > 8192.0) {
      EXPECT_DOUBLE_EQ(ratio, 8.0);
    } else {
      EXPECT_TRUE(ratio >= 1.0 && ratio <= 8.0) << ratio;
      ++between;
    }
  }
  EXPECT_GT(between, 2);
}

TEST(RotaryTest, HeadsAndRowsDoNotMix) {
  for (const DType dtype : FastDTypes()) {
    TestTensor whole(dtype, {4, 3, 20}), part(dtype, {4, 1, 20}), positions(DType::kInt32, {4});
    whole.Normal(1);
    positions.Integers(3, 30);
    for (int64_t row = 0; row < 4; ++row) {
      for (int64_t i = 0; i < 20; ++i) part.Set(row, i, whole.At(row, 40 + i));
    }
    const TestTensor table = TableFor(DType::kFloat32, 30, 20);
    RotaryForward(TestExec(), whole, positions, table);
    RotaryForward(TestExec(), part, positions, table);
    for (int64_t row = 0; row < 4; ++row) {
      for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(part.At(row, i), whole.At(row, 40 + i));
    }
  }
}

}  // namespace
}  // namespace troupe::kernel_test
