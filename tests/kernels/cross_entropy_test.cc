#include "kernels/cross_entropy.h"

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

constexpr Tolerance kCrossEntropy{.float32 = 1e-6, .bfloat16 = 5e-3};

TestTensor Labels(int64_t tokens, int32_t vocab) {
  TestTensor labels(DType::kInt32, {tokens});
  labels.Integers(9, vocab);
  if (tokens > 2) labels.view().as<int32_t>()[1] = kIgnoredLabel;
  return labels;
}

TEST(CrossEntropyTest, AgreesWithTheSpecification) {
  for (const int32_t vocab : {1, 2, 15, 16, 33, 256, 1000}) {
    for (const DType dtype : FastDTypes()) {
      TestTensor logits(dtype, {7, vocab}, 3), dlogits(dtype, {7, vocab}, 5);
      logits.Normal(1, 8.0);
      dlogits.Normal(2);
      const TestTensor labels = Labels(7, vocab);
      TestTensor wide = dlogits.As(DType::kFloat64);
      LossSum loss, wide_loss;
      CrossEntropy(TestExec(), dlogits, logits, labels, loss);
      CrossEntropy(TestExec(), wide, logits.As(DType::kFloat64), labels, wide_loss);
      ExpectClose(dlogits, wide, kCrossEntropy, "dlogits");
      EXPECT_NEAR(loss.nll, wide_loss.nll, 1e-6 * wide_loss.nll + 1e-6);
      EXPECT_EQ(loss.num_tokens, 6);
      for (int64_t i = 0; i < vocab; ++i) EXPECT_EQ(dlogits.At(1, i), 0.0);
    }
  }
}

TEST(CrossEntropyTest, GradientMatchesCentralDifferences) {
  TestTensor logits(DType::kFloat64, {4, 6}), dlogits = logits;
  logits.Normal(1, 2.0);
  const TestTensor labels = Labels(4, 6);
  const auto loss = [&] {
    LossSum sum;
    CrossEntropy(TestExec(), TensorView(), logits, labels, sum);
    return sum.nll;
  };
  LossSum sum;
  CrossEntropy(TestExec(), dlogits, logits, labels, sum);
  EXPECT_DOUBLE_EQ(sum.nll, loss());
  ExpectGradient(logits, dlogits, loss, "dlogits");
}

TEST(CrossEntropyTest, UniformLogitsCostTheLogOfTheVocabulary) {
  TestTensor logits(DType::kFloat32, {1, 100}), labels(DType::kInt32, {1});
  *labels.view().as<int32_t>() = 42;
  LossSum sum;
  CrossEntropy(TestExec(), TensorView(), logits, labels, sum);
  EXPECT_NEAR(sum.nll, std::log(100.0), 1e-6);
}

// In place, to another dtype, and in chunks of any size: the same bits of loss and gradient.
TEST(CrossEntropyTest, BitsDoNotDependOnTheChunking) {
  TestTensor logits(DType::kFloat32, {9, 130});
  logits.Normal(1, 3.0);
  const TestTensor labels = Labels(9, 130);
  TestTensor whole = logits, chunked = logits, in_place = logits;
  LossSum whole_sum, chunked_sum, in_place_sum, narrow_sum;
  CrossEntropy(TestExec(), whole, logits, labels, whole_sum);
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 2}, {2, 1}, {3, 6}}) {
    CrossEntropy(TestExec(), chunked.view().Rows(first, count), logits.view().Rows(first, count),
                 labels.view().Rows(first, count), chunked_sum);
  }
  CrossEntropy(TestExec(), in_place, in_place, labels, in_place_sum);
  EXPECT_TRUE(whole.SameBytes(chunked));
  EXPECT_TRUE(whole.SameBytes(in_place));
  EXPECT_EQ(whole_sum.nll, chunked_sum.nll);
  EXPECT_EQ(whole_sum.nll, in_place_sum.nll);
  TestTensor narrow(DType::kBFloat16, {9, 130});
  CrossEntropy(TestExec(), narrow, logits, labels, narrow_sum);
  EXPECT_TRUE(narrow.SameBytes(whole.As(DType::kBFloat16)));
}

}  // namespace
}  // namespace troupe::kernel_test
