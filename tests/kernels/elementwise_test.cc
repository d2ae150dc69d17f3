#include "kernels/elementwise.h"

#include <limits>

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

const std::vector<DType> kDTypes = {DType::kFloat32, DType::kBFloat16, DType::kFloat64};

// Fast and specification must agree bit for bit: every element is one rounding.
TEST(ElementwiseTest, AgreesWithTheSpecification) {
  for (const int64_t columns : {1, 5, 16, 31, 100}) {
    for (const DType in_dtype : kDTypes) {
      for (const DType out_dtype : kDTypes) {
        TestTensor a(in_dtype, {3, columns}, 3), b(in_dtype, {3, columns}, 1);
        TestTensor fast(out_dtype, {3, columns}, 2);
        a.Normal(1);
        b.Normal(2);
        fast.Normal(3);
        TestTensor plain = fast;
        Cast(TestExec(), fast, a);
        Cast(TestExec().Specification(), plain, a);
        EXPECT_TRUE(fast.SameBytes(plain)) << DTypeName(in_dtype) << DTypeName(out_dtype);
        EXPECT_TRUE(fast.SameBytes(a.As(out_dtype)));
        Add(TestExec(), fast, a, b);
        Add(TestExec().Specification(), plain, a, b);
        EXPECT_TRUE(fast.SameBytes(plain));
        Accumulate(TestExec(), fast, b);
        Accumulate(TestExec().Specification(), plain, b);
        EXPECT_TRUE(fast.SameBytes(plain));
        EXPECT_TRUE(fast.PaddingIsIntact());
      }
    }
  }
}

TEST(ElementwiseTest, BFloat16RoundsToNearestEven) {
  TestTensor in(DType::kFloat32, {5}), out(DType::kBFloat16, {5});
  const double ulp = 1.0 / 128;
  const double values[] = {1.0, 1 + ulp / 2, 1 + 3 * ulp / 2, 1 + ulp * 0.51, -1 - ulp / 2};
  const double rounded[] = {1.0, 1.0, 1 + 2 * ulp, 1 + ulp, -1.0};
  for (int64_t i = 0; i < 5; ++i) in.Set(i, 0, values[i]);
  Cast(TestExec(), out, in);
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(out.At(i, 0), rounded[i]);
}

// Half of a sum's last bit at a time: each one is a tie and goes to even, so the first changes
// nothing and three quarters do.
TEST(ElementwiseTest, ABFloat16SumRoundsOnceEachTime) {
  for (const bool specification : {false, true}) {
    const Exec exec{.specification = specification};
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      TestTensor sum(DType::kBFloat16, {37}), in(dtype, {37});
      for (int64_t i = 0; i < 37; ++i) {
        sum.Set(i, 0, 1.0);
        in.Set(i, 0, i % 2 == 0 ? 0x1p-8 : 0x1.8p-8);
      }
      Accumulate(exec, sum, in);
      for (int64_t i = 0; i < 37; ++i) EXPECT_EQ(sum.At(i, 0), i % 2 == 0 ? 1.0 : 1.0 + 0x1p-7);
    }
  }
}

TEST(ElementwiseTest, NotANumberStaysOne) {
  TestTensor in(DType::kFloat32, {40}), out(DType::kBFloat16, {40});
  for (int64_t i = 0; i < 40; ++i) {
    in.view().as<float>()[i] = std::bit_cast<float>(0x7f800001u + static_cast<uint32_t>(i));
  }
  Cast(TestExec(), out, in);
  for (int64_t i = 0; i < 40; ++i) EXPECT_TRUE(std::isnan(out.At(i, 0)));
}

TEST(ElementwiseTest, FillsRowsAndNothingElse) {
  for (const DType dtype : kDTypes) {
    TestTensor x(dtype, {4, 7}, 3);
    x.Normal(1);
    FillZero(TestExec(), x);
    EXPECT_EQ(x.LargestMagnitude(), 0.0);
    EXPECT_TRUE(x.PaddingIsIntact());
  }
}

}  // namespace
}  // namespace troupe::kernel_test
