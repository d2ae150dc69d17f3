#include "runtime/base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace troupe {
namespace {

// Known answers published with Philox4x32-10 (Salmon et al. 2011).
TEST(PhiloxTest, AgreesWithThePublishedVectors) {
  EXPECT_EQ(Philox(0, 0, 0),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox(~0ull, ~0ull, ~0ull),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(NormalAtTest, HasMeanZeroAndVarianceOne) {
  const uint64_t key = RandomKey(1234, "model.layers.0.mlp.gate_proj.weight");
  constexpr int kSamples = 100'000;
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kSamples; ++i) {
    const double x = NormalAt(key, static_cast<uint64_t>(i));
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kSamples, 0, 0.02);
  EXPECT_NEAR(squares / kSamples, 1, 0.02);
}

TEST(RandomKeyTest, SeparatesSeedsAndNames) {
  EXPECT_NE(RandomKey(1, "a"), RandomKey(2, "a"));
  EXPECT_NE(RandomKey(1, "a"), RandomKey(1, "b"));
  EXPECT_EQ(RandomKey(1, "a"), RandomKey(1, "a"));
}

TEST(PermutationTest, IsAPermutationAndMoves) {
  auto order = Permutation(RandomKey(7, "data/epoch/0"), 1000);
  std::vector<int64_t> identity(1000);
  std::iota(identity.begin(), identity.end(), 0);
  EXPECT_NE(order, identity);
  std::ranges::sort(order);
  EXPECT_EQ(order, identity);
  EXPECT_TRUE(Permutation(1, 0).empty());
  EXPECT_EQ(Permutation(1, 1), std::vector<int64_t>{0});
}

}  // namespace
}  // namespace troupe
