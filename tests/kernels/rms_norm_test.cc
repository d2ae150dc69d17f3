#include "kernels/rms_norm.h"

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

constexpr Tolerance kRmsNorm{.float32 = 2e-6, .bfloat16 = 5e-3};
constexpr double kEps = 1e-5;

struct Sizes {
  int64_t tokens, channels;
};
const std::vector<Sizes> kSizes = {{1, 1}, {2, 3}, {5, 16}, {7, 33}, {9, 100}, {4, 688}};

struct Case {
  TestTensor x, delta, weight, dy, residual, y, rstd, sum, dx, dweight;

  Case(const Sizes& s, DType dtype, int64_t padding = 0) {
    const auto tokens = [&] { return TestTensor(dtype, {s.tokens, s.channels}, padding); };
    const DType wide = dtype == DType::kFloat64 ? dtype : DType::kFloat32;
    x = tokens();
    delta = tokens();
    dy = tokens();
    residual = tokens();
    y = tokens();
    sum = tokens();
    dx = tokens();
    weight = TestTensor(dtype, {s.channels});
    rstd = TestTensor(wide, {s.tokens});
    dweight = TestTensor(wide, {s.channels});
    x.Normal(1);
    delta.Normal(2);
    dy.Normal(3);
    residual.Normal(4);
    weight.Normal(5);
    dweight.Normal(6);
  }
  Case Wide() const {
    Case copy({x.rows(), x.columns()}, DType::kFloat64);
    copy.x = x.As(DType::kFloat64);
    copy.delta = delta.As(DType::kFloat64);
    copy.dy = dy.As(DType::kFloat64);
    copy.residual = residual.As(DType::kFloat64);
    copy.weight = weight.As(DType::kFloat64);
    copy.dweight = dweight.As(DType::kFloat64);
    return copy;
  }
  void Forward() { RmsNormForward(TestExec(), y, rstd, x, weight, kEps); }
  void AddForward() { AddRmsNormForward(TestExec(), {y, rstd, sum, x, delta, weight, kEps}); }
  RmsNormBackwardArgs BackwardArgs() const { return {dx, dweight, dy, x, rstd, weight, residual}; }
};

TEST(RmsNormTest, AgreesWithTheSpecification) {
  for (const Sizes& s : kSizes) {
    for (const DType dtype : FastDTypes()) {
      for (const int64_t padding : {0, 3}) {
        Case fast(s, dtype, padding);
        Case reference = fast.Wide();
        fast.Forward();
        reference.Forward();
        ExpectClose(fast.y, reference.y, kRmsNorm, "y");
        ExpectClose(fast.rstd, reference.rstd, kRmsNorm, "rstd");
        RmsNormBackward(TestExec(), fast.BackwardArgs());
        RmsNormBackward(TestExec(), reference.BackwardArgs());
        ExpectClose(fast.dx, reference.dx, kRmsNorm, "dx");
        ExpectClose(fast.dweight, reference.dweight, kRmsNorm, "dweight");
      }
    }
  }
}

// The fused sum is the sum rounded to its dtype, and the norm reads that.
TEST(RmsNormTest, AddThenNormInOnePass) {
  for (const Sizes& s : kSizes) {
    for (const DType dtype : FastDTypes()) {
      Case fused(s, dtype, 3), apart(s, dtype);
      fused.AddForward();
      for (int64_t t = 0; t < s.tokens; ++t) {
        for (int64_t c = 0; c < s.channels; ++c) {
          const float sum =
              static_cast<float>(apart.x.At(t, c)) + static_cast<float>(apart.delta.At(t, c));
          apart.x.Set(t, c, sum);
        }
      }
      apart.Forward();
      EXPECT_TRUE(fused.sum.SameBytes(apart.x));
      EXPECT_TRUE(fused.y.SameBytes(apart.y));
      EXPECT_TRUE(fused.rstd.SameBytes(apart.rstd));
      EXPECT_TRUE(fused.y.PaddingIsIntact() && fused.sum.PaddingIsIntact());
    }
  }
}

TEST(RmsNormTest, GradientsMatchCentralDifferences) {
  Case c({3, 5}, DType::kFloat64);
  const auto loss = [&] {
    c.Forward();
    return Inner(c.y, c.dy);
  };
  loss();
  RmsNormBackwardArgs args = c.BackwardArgs();
  args.residual = {};
  c.dweight = TestTensor(DType::kFloat64, {5});
  args.dweight = c.dweight;
  RmsNormBackward(TestExec(), args);
  ExpectGradient(c.x, c.dx, loss, "dx");
  ExpectGradient(c.weight, c.dweight, loss, "dweight");
}

// Input half and weight half apart give the bits of both at once, in place of the residual too;
// the weight half over two runs of tokens gives the bits of one.
TEST(RmsNormTest, HalvesAndPartsGiveTheSameBits) {
  for (const DType dtype : FastDTypes()) {
    Case whole({9, 100}, dtype), halves({9, 100}, dtype);
    whole.Forward();
    halves.Forward();
    RmsNormBackward(TestExec(), whole.BackwardArgs());
    RmsNormBackwardArgs input = halves.BackwardArgs();
    input.dweight = {};
    input.dx = halves.residual;
    RmsNormBackward(TestExec(), input);
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 4}, {4, 5}}) {
      RmsNormBackwardArgs part = halves.BackwardArgs();
      part.dx = {};
      part.dy = part.dy.Rows(first, count);
      part.x = part.x.Rows(first, count);
      part.rstd = part.rstd.Rows(first, count);
      RmsNormBackward(TestExec(), part);
    }
    EXPECT_TRUE(whole.dx.SameBytes(halves.residual));
    EXPECT_TRUE(whole.dweight.SameBytes(halves.dweight));
  }
}

}  // namespace
}  // namespace troupe::kernel_test
