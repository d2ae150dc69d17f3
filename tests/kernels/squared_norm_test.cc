#include "kernels/squared_norm.h"

#include <rapidcheck.h>

#include "tests/kernels/harness.h"

namespace troupe::kernel_test {
namespace {

std::vector<double> LeavesOf(const Exec& exec, ConstTensorView grad) {
  std::vector<double> leaves(static_cast<size_t>(NumNormLeaves(grad.num_elements())));
  SquaredNormLeaves(exec, leaves, grad);
  return leaves;
}

TEST(SquaredNormTest, IsTheSumOfSquares) {
  for (const int64_t size : {1, 5, 1023, 1024, 1025, 5000}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat64}) {
      TestTensor grad(dtype, {size});
      grad.Normal(1);
      const std::vector<double> leaves = LeavesOf(TestExec(), grad);
      const std::vector<NormNode> nodes =
          SquaredNormNodes(static_cast<int64_t>(leaves.size()), 0, leaves);
      ASSERT_EQ(nodes.size(), 1u);
      EXPECT_NEAR(nodes[0].sum, Inner(grad, grad), 1e-12 * nodes[0].sum);
    }
  }
}

TEST(SquaredNormTest, FastLeavesEqualTheSpecificationBitForBit) {
  for (const int64_t size : {1, 15, 16, 17, 1024, 3000}) {
    for (const DType dtype : FastDTypes()) {
      TestTensor grad(dtype, {size});
      grad.Normal(2, 100.0);
      EXPECT_EQ(LeavesOf(TestExec(), grad), LeavesOf(TestExec().Specification(), grad));
    }
  }
}

TEST(SquaredNormTest, LeavesOfABFloat16GradientAreThoseOfTheSameNumbers) {
  for (const int64_t size : {1, 17, 1024, 2049}) {
    TestTensor grad(DType::kBFloat16, {size});
    grad.Normal(2, 100.0);
    for (const bool specification : {false, true}) {
      const Exec exec{.specification = specification};
      EXPECT_EQ(LeavesOf(exec, grad), LeavesOf(exec, grad.As(DType::kFloat32)));
    }
  }
}

TEST(SquaredNormTest, SplitsAtTheLargestPowerOfTwo) {
  const std::vector<double> leaves = {1, 2, 4, 8, 16};
  // Over 5 leaves the tree is ((0 1)(2 3)) 4: the run 1..4 holds subtrees 1, (2 3), 4.
  const std::vector<NormNode> nodes = SquaredNormNodes(5, 1, std::span(leaves).subspan(1));
  ASSERT_EQ(nodes.size(), 3u);
  EXPECT_EQ(nodes[0].first_leaf, 1);
  EXPECT_EQ(nodes[0].num_leaves, 1);
  EXPECT_EQ(nodes[1].first_leaf, 2);
  EXPECT_EQ(nodes[1].num_leaves, 2);
  EXPECT_EQ(nodes[1].sum, 12.0);
  EXPECT_EQ(nodes[2].first_leaf, 4);
}

TEST(SquaredNormTest, AParameterWithoutElementsCountsNothing) { EXPECT_EQ(NumNormLeaves(0), 0); }

}  // namespace
}  // namespace troupe::kernel_test
