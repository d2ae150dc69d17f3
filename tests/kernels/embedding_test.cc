#include "kernels/embedding.h"

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

TEST(EmbeddingTest, GathersRows) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat64}) {
    TestTensor table(dtype, {11, 19}), tokens(DType::kInt32, {30}), out(dtype, {30, 19}, 2);
    table.Normal(1);
    tokens.Integers(2, 11);
    EmbeddingForward(TestExec(), out, tokens, table);
    for (int64_t t = 0; t < 30; ++t) {
      const int32_t token = tokens.view().as<int32_t>()[t];
      for (int64_t c = 0; c < 19; ++c) ASSERT_EQ(out.At(t, c), table.At(token, c));
    }
    EXPECT_TRUE(out.PaddingIsIntact());
  }
}

// Tokens repeat, so the order of the sum shows in the bits.
TEST(EmbeddingTest, ScattersInTokenOrder) {
  for (const DType dtype : FastDTypes()) {
    TestTensor dout(dtype, {40, 21}), tokens(DType::kInt32, {40}), fast(DType::kFloat32, {5, 21});
    dout.Normal(1);
    tokens.Integers(2, 5);
    fast.Normal(3);
    TestTensor plain = fast;
    EmbeddingBackward(TestExec(), fast, tokens, dout);
    for (int64_t t = 0; t < 40; ++t) {
      const int32_t token = tokens.view().as<int32_t>()[t];
      for (int64_t c = 0; c < 21; ++c) {
        plain.Set(token, c,
                  static_cast<float>(plain.At(token, c)) + static_cast<float>(dout.At(t, c)));
      }
    }
    EXPECT_TRUE(fast.SameBytes(plain));
  }
}

TEST(EmbeddingDeathTest, RefusesATokenOutsideTheVocabulary) {
  TestTensor table(DType::kFloat32, {3, 2}), tokens(DType::kInt32, {1}),
      out(DType::kFloat32, {1, 2});
  *tokens.view().as<int32_t>() = 3;
  EXPECT_DEATH(EmbeddingForward(TestExec(), out, tokens, table), "outside the vocabulary");
}

}  // namespace
}  // namespace troupe::kernel_test
