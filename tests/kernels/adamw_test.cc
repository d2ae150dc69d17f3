#include "kernels/adamw.h"

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

constexpr Tolerance kAdamW{.float32 = 1e-6, .bfloat16 = 5e-3};

struct State {
  TestTensor param, m, v, grad, compute;

  State(int64_t size, DType dtype) {
    param = TestTensor(dtype, {size});
    param.Normal(1);
    grad = TestTensor(dtype, {size});
    grad.Normal(2, 0.3);
    m = TestTensor(dtype, {size});
    v = TestTensor(dtype, {size});
    compute = TestTensor(DType::kBFloat16, {size});
  }
  AdamWArgs Args(bool with_compute = true) const {
    return {param, m, v, grad, with_compute ? compute.view() : TensorView()};
  }
};

TEST(AdamWTest, AgreesWithTheSpecification) {
  for (const int64_t size : {1, 7, 16, 33, 1000}) {
    State fast(size, DType::kFloat32), wide(size, DType::kFloat64);
    wide.param = fast.param.As(DType::kFloat64);
    wide.grad = fast.grad.As(DType::kFloat64);
    for (int64_t step = 1; step <= 4; ++step) {
      const AdamWOptions options{.lr = 0.01, .grad_factor = 0.25, .step = step};
      AdamW(TestExec(), options, fast.Args());
      AdamW(TestExec(), options, wide.Args());
    }
    ExpectClose(fast.param, wide.param, kAdamW, "param");
    ExpectClose(fast.m, wide.m, kAdamW, "m");
    ExpectClose(fast.v, wide.v, kAdamW, "v");
    EXPECT_TRUE(fast.compute.SameBytes(fast.param.As(DType::kBFloat16)));
  }
}

// A bfloat16 gradient moves the parameters as the same numbers in float32 do, with and without a
// compute copy.
TEST(AdamWTest, ABFloat16GradientIsWidened) {
  for (const bool with_compute : {true, false}) {
    for (const bool specification : {false, true}) {
      const Exec exec{.specification = specification};
      State half(333, DType::kFloat32), full(333, DType::kFloat32);
      half.grad = half.grad.As(DType::kBFloat16);
      full.grad = half.grad.As(DType::kFloat32);
      for (int64_t step = 1; step <= 3; ++step) {
        const AdamWOptions options{.grad_factor = 0.25, .step = step};
        AdamW(exec, options, half.Args(with_compute));
        AdamW(exec, options, full.Args(with_compute));
      }
      EXPECT_TRUE(half.param.SameBytes(full.param));
      EXPECT_TRUE(half.m.SameBytes(full.m));
      EXPECT_TRUE(half.v.SameBytes(full.v));
      EXPECT_TRUE(half.compute.SameBytes(full.compute));
    }
  }
}

// One step by hand: without history the update is the sign of the gradient, times lr.
TEST(AdamWTest, FirstStepMovesByTheLearningRate) {
  TestTensor param(DType::kFloat64, {2}), m = param, v = param, grad = param;
  param.Set(0, 0, 2.0);
  param.Set(1, 0, -3.0);
  grad.Set(0, 0, 5.0);
  grad.Set(1, 0, -0.1);
  AdamW(TestExec(), {.lr = 0.01, .eps = 0.0, .weight_decay = 0.1}, {param, m, v, grad, {}});
  EXPECT_NEAR(param.At(0, 0), 2.0 * (1 - 0.001) - 0.01, 1e-15);
  EXPECT_NEAR(param.At(1, 0), -3.0 * (1 - 0.001) + 0.01, 1e-15);
  EXPECT_NEAR(m.At(0, 0), 0.5, 1e-15);
  EXPECT_NEAR(v.At(0, 0), 0.05 * 25.0, 1e-14);
}

TEST(AdamWTest, BitsDoNotDependOnTheSharding) {
  constexpr int64_t kSize = 301;
  State whole(kSize, DType::kFloat32), parts(kSize, DType::kFloat32);
  for (int64_t step = 1; step <= 3; ++step) {
    const AdamWOptions options{.step = step};
    AdamW(TestExec(), options, whole.Args());
    for (int64_t first = 0; first < kSize; first += 43) {
      const int64_t count = std::min<int64_t>(43, kSize - first);
      const AdamWArgs args = parts.Args();
      AdamW(TestExec(), options,
            {args.param.Rows(first, count), args.m.Rows(first, count), args.v.Rows(first, count),
             args.grad.Rows(first, count), args.compute.Rows(first, count)});
    }
  }
  EXPECT_TRUE(whole.param.SameBytes(parts.param));
  EXPECT_TRUE(whole.v.SameBytes(parts.v));
  EXPECT_TRUE(whole.compute.SameBytes(parts.compute));
}

}  // namespace
}  // namespace troupe::kernel_test
