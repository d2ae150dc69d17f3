#include "kernels/matmul.h"

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

constexpr Tolerance kMatmul{.float32 = 2e-6, .bfloat16 = 5e-3};

struct Sizes {
  int64_t tokens, in, out;
};
const std::vector<Sizes> kSizes = {{1, 1, 1},     {3, 5, 7},      {16, 32, 64},
                                   {17, 33, 65},  {64, 64, 48},   {128, 40, 96},
                                   {31, 256, 24}, {256, 72, 130}, {20, 128, 384}};

enum class Product { kForward, kInputGrad, kWeightGrad };
const std::vector<Product> kProducts = {Product::kForward, Product::kInputGrad,
                                        Product::kWeightGrad};

// The two operands of a product and the shape of its result.
struct Case {
  TestTensor left, right;
  int64_t rows, columns;

  Case(Product product, const Sizes& s, DType dtype, int64_t padding) {
    const auto x = [&] { return TestTensor(dtype, {s.tokens, s.in}, padding); };
    const auto y = [&] { return TestTensor(dtype, {s.tokens, s.out}, padding); };
    const auto w = [&] { return TestTensor(dtype, {s.out, s.in}, padding); };
    left = product == Product::kForward ? x() : y();
    right = product == Product::kWeightGrad ? x() : w();
    left.Normal(1);
    right.Normal(2);
    rows = product == Product::kWeightGrad ? s.out : s.tokens;
    columns = product == Product::kForward ? s.out : s.in;
  }
};

void Multiply(Product product, const Exec& exec, TensorView result, ConstTensorView left,
              const PackedWeight& right, bool accumulate) {
  switch (product) {
    case Product::kForward:
      return MatmulForward(exec, result, left, right, accumulate);
    case Product::kInputGrad:
      return MatmulInputGrad(exec, result, left, right, accumulate);
    case Product::kWeightGrad:
      return MatmulWeightGrad(exec, result, left, right.weight, accumulate);
  }
}

TestExec ExecFor(const Sizes& s, DType dtype, int num_threads = 1) {
  return TestExec(MatmulWorkspaceBytes({s.tokens, s.in, s.out, dtype}), num_threads);
}

TEST(MatmulTest, AgreesWithTheSpecification) {
  for (const Product product : kProducts) {
    for (const Sizes& s : kSizes) {
      for (const DType dtype : FastDTypes()) {
        for (const DType result_dtype : {DType::kFloat32, dtype}) {
          if (product == Product::kWeightGrad && result_dtype == DType::kBFloat16) continue;
          for (const int64_t padding : {0, 3}) {
            for (const bool accumulate : {false, true}) {
              const Case c(product, s, dtype, padding);
              TestTensor result(result_dtype, {c.rows, c.columns}, padding);
              result.Normal(3);
              TestTensor reference = result.As(DType::kFloat64);
              Multiply(product, ExecFor(s, dtype), result, c.left, c.right.view(), accumulate);
              Multiply(product, TestExec(), reference, c.left.As(DType::kFloat64),
                       c.right.As(DType::kFloat64).view(), accumulate);
              ExpectClose(result, reference, kMatmul,
                          "product " + std::to_string(static_cast<int>(product)) + " tokens " +
                              std::to_string(s.tokens) + " " + DTypeName(dtype));
            }
          }
        }
      }
    }
  }
}

TEST(MatmulTest, GradientsMatchCentralDifferences) {
  TestTensor x(DType::kFloat64, {5, 4}), w(DType::kFloat64, {3, 4}), dy(DType::kFloat64, {5, 3});
  x.Normal(1);
  w.Normal(2);
  dy.Normal(3);
  const auto loss = [&] {
    TestTensor y(DType::kFloat64, {5, 3});
    MatmulForward(TestExec(), y, x, w.view());
    return Inner(y, dy);
  };
  TestTensor dx(DType::kFloat64, {5, 4}), dw(DType::kFloat64, {3, 4});
  MatmulInputGrad(TestExec(), dx, dy, w.view());
  MatmulWeightGrad(TestExec(), dw, dy, x, false);
  ExpectGradient(x, dx, loss, "dx");
  ExpectGradient(w, dw, loss, "dw");
}

// A packed weight changes neither the values beyond rounding nor the result at other row counts.
TEST(MatmulTest, PackedWeightsAgreeWithPlainOnes) {
  for (const Sizes& s :
       {Sizes{64, 96, 80}, Sizes{128, 256, 160}, Sizes{33, 17, 51}, Sizes{40, 72, 256}}) {
    for (const DType dtype : FastDTypes()) {
      for (const Product product : {Product::kForward, Product::kInputGrad}) {
        const WeightUse use =
            product == Product::kForward ? WeightUse::kForward : WeightUse::kInputGrad;
        const MatmulShape shape{s.tokens, s.in, s.out, dtype};
        const Case c(product, s, dtype, 0);
        const int64_t bytes = PackedWeightBytes(shape, use);
        TestTensor memory(DType::kFloat64, {bytes / 8 + 8});
        const PackedWeight packed =
            PackWeight(ExecFor(s, dtype), shape, use, c.right,
                       {static_cast<std::byte*>(memory.view().data()), static_cast<size_t>(bytes)});
        for (const int64_t rows : {s.tokens, s.tokens - 1}) {
          TestTensor result(dtype, {rows, c.columns}),
              reference(DType::kFloat64, {rows, c.columns});
          Multiply(product, ExecFor(s, dtype), result, c.left.view().Rows(0, rows), packed, false);
          const TestTensor wide = c.left.As(DType::kFloat64);
          Multiply(product, TestExec(), reference, wide.view().Rows(0, rows),
                   c.right.As(DType::kFloat64).view(), false);
          ExpectClose(result, reference, kMatmul, "packed");
        }
      }
    }
  }
}

// Where the operands lie and what ran before changes no bit.
TEST(MatmulTest, SameShapeGivesSameBits) {
  for (const Product product : kProducts) {
    for (const DType dtype : FastDTypes()) {
      const Sizes s{48, 80, 56};
      const Case c(product, s, dtype, 0);
      TestTensor first(DType::kFloat32, {c.rows, c.columns});
      Multiply(product, ExecFor(s, dtype), first, c.left, c.right.view(), false);
      for (int64_t offset = 1; offset < 4; ++offset) {
        // The same operands as row blocks of larger dense matrices.
        TestTensor left(dtype, {c.left.rows() + offset, c.left.columns()});
        TestTensor right(dtype, {c.right.rows() + offset, c.right.columns()});
        TestTensor result(DType::kFloat32, {c.rows + offset, c.columns});
        const auto copy = [offset](const TestTensor& from, TestTensor& to) {
          for (int64_t row = 0; row < from.rows(); ++row) {
            for (int64_t k = 0; k < from.columns(); ++k) to.Set(row + offset, k, from.At(row, k));
          }
        };
        copy(c.left, left);
        copy(c.right, right);
        Multiply(product, ExecFor(s, dtype), result.view().Rows(offset, c.rows),
                 left.view().Rows(offset, c.left.rows()),
                 ConstTensorView(right.view()).Rows(offset, c.right.rows()), false);
        TestTensor again(DType::kFloat32, {c.rows, c.columns});
        for (int64_t row = 0; row < c.rows; ++row) {
          for (int64_t k = 0; k < c.columns; ++k) again.Set(row, k, result.At(row + offset, k));
        }
        EXPECT_TRUE(first.SameBytes(again)) << DTypeName(dtype) << " offset " << offset;
      }
    }
  }
}

// A workspace that is too small ends the process with the op and the shape.
TEST(MatmulTest, NamesTheOpThatLacksWorkspace) {
  const Sizes s{40, 128, 256};
  const DType dtype = DType::kBFloat16;
  const TestExec none;
  const MatmulShape shape{s.tokens, s.in, s.out, dtype};
  const TestTensor weight(dtype, {s.out, s.in});
  EXPECT_DEATH(PackWeight(none, shape, WeightUse::kForward, weight, {}),
               "PackWeight of 40 tokens, 128 channels in, 256 out, bfloat16: a workspace of 0 "
               "bytes, where it takes [1-9]");
  if (ThisCpu().bfloat16_products) return;  // its products take none
  const Case c(Product::kWeightGrad, s, dtype, 0);
  const TestTensor dw(DType::kFloat32, {s.out, s.in});
  EXPECT_DEATH(MatmulWeightGrad(none, dw, c.left, c.right), "MatmulWeightGrad of 40 tokens, 128");
  const TestTensor y(dtype, {s.tokens, s.out}), x(dtype, {s.tokens, s.in});
  EXPECT_DEATH(MatmulForward(none, y, x, weight.view()), "MatmulForward of 40 tokens, 128");
  EXPECT_DEATH(MatmulInputGrad(none, x, y, weight.view()), "MatmulInputGrad of 40 tokens, 128");
}

TEST(MatmulTest, TwoMathThreadsAgreeWithOne) {
  for (const Product product : kProducts) {
    const Sizes s{96, 128, 64};
    const Case c(product, s, DType::kFloat32, 0);
    TestTensor one(DType::kFloat32, {c.rows, c.columns}), two(DType::kFloat32, {c.rows, c.columns});
    Multiply(product, ExecFor(s, DType::kFloat32, 1), one, c.left, c.right.view(), false);
    Multiply(product, ExecFor(s, DType::kFloat32, 2), two, c.left, c.right.view(), false);
    ExpectClose(two, one, kMatmul, "two threads");
  }
}

}  // namespace
}  // namespace troupe::kernel_test
