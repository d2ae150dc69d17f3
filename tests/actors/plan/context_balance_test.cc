#include "actors/plan/context_balance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace troupe {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr auto kContiguous = SequenceLayout::kContiguous;
constexpr auto kStriped = SequenceLayout::kStriped;
constexpr auto kZigzag = SequenceLayout::kZigzag;

double Total(const std::vector<double>& hops) {
  return std::accumulate(hops.begin(), hops.end(), 0.0);
}

// Of the ring, n ranks with c positions each, sums of small integers: exact.
class ContextBalance : public ::testing::TestWithParam<std::tuple<int, int64_t>> {
 protected:
  HopWork Pairs(SequenceLayout layout) const {
    return PairsByHop({.num_ranks = num_ranks_, .layout = layout}, num_ranks_ * local_);
  }
  double Path(SequenceLayout layout) const {
    return CriticalPath(ContextMethod::kRing, Pairs(layout));
  }
  double Balance(SequenceLayout layout) const {
    return BalanceOf(ContextMethod::kRing, Pairs(layout));
  }

  const int num_ranks_ = std::get<0>(GetParam());
  const int64_t local_ = std::get<1>(GetParam());
  const double n = num_ranks_;
  const double c = static_cast<double>(local_);
  const double ideal = c * (n * c + 1) / 2;  // a rank's share of the sequence's pairs
};

TEST_P(ContextBalance, TotalsOfRanksAreTheClosedForms) {
  const HopWork contiguous = Pairs(kContiguous);
  const HopWork striped = Pairs(kStriped);
  const HopWork zigzag = Pairs(kZigzag);
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const double r = rank;
    const auto at = static_cast<size_t>(rank);
    EXPECT_EQ(Total(contiguous[at]), r * c * c + c * (c + 1) / 2);
    EXPECT_EQ(Total(striped[at]), n * c * c / 2 + c * (2 * r + 2 - n) / 2);
    EXPECT_EQ(Total(zigzag[at]), ideal);
  }
}

TEST_P(ContextBalance, CriticalPathsAreTheClosedForms) {
  EXPECT_EQ(Path(kContiguous), (n - 1) * c * c + c * (c + 1) / 2);
  EXPECT_EQ(Path(kStriped), n * c * (c + 1) / 2);
  EXPECT_EQ(Path(kZigzag), ideal);
}

TEST_P(ContextBalance, ZigzagAloneIsPerfect) {
  EXPECT_DOUBLE_EQ(Balance(kContiguous), (n * c + 1) / ((2 * n - 1) * c + 1));
  EXPECT_DOUBLE_EQ(Balance(kStriped), (n * c + 1) / (n * (c + 1)));
  EXPECT_EQ(Balance(kZigzag), 1);
}

INSTANTIATE_TEST_SUITE_P(RanksAndPositions, ContextBalance,
                         ::testing::Combine(::testing::Values(2, 3, 4, 6, 8, 16),
                                            ::testing::Values(2, 10, 1024)));

TEST(ContextBalanceTest, FiguresOfEightRanks) {
  const auto balance = [](SequenceLayout layout) {
    return BalanceOf(ContextMethod::kRing,
                     PairsByHop({.num_ranks = 8, .layout = layout}, int64_t{8} * 1024));
  };
  EXPECT_NEAR(balance(kContiguous), 0.5333, 1e-4);
  EXPECT_NEAR(balance(kStriped), 0.9991, 1e-4);
  EXPECT_EQ(balance(kZigzag), 1);
}

// No hop of theirs waits for a neighbour, so only what a rank does in all counts.
TEST(ContextBalanceTest, MethodsWithoutHopsWaitAtTheEndAlone) {
  const HopWork work = {{1, 5}, {4, 1}, {3, 3}};
  EXPECT_EQ(CriticalPath(ContextMethod::kRing, work), 9);
  EXPECT_EQ(CriticalPath(ContextMethod::kAllGather, work), 6);
  EXPECT_DOUBLE_EQ(BalanceOf(ContextMethod::kRing, work), 17.0 / 3 / 9);
  EXPECT_DOUBLE_EQ(BalanceOf(ContextMethod::kAllGather, work), 17.0 / 3 / 6);
}

TEST(ContextBalanceTest, UlyssesSeesWholeSequences) {
  const HopWork work =
      PairsByHop({.num_ranks = 4, .method = ContextMethod::kUlysses, .layout = kContiguous}, 8);
  EXPECT_THAT(work, ::testing::SizeIs(4));
  EXPECT_THAT(work, Each(ElementsAre(36)));
  EXPECT_EQ(BalanceOf(ContextMethod::kUlysses, work), 1);
}

TEST(ContextBalanceTest, NoWorkIsBalanced) {
  EXPECT_EQ(BalanceOf(ContextMethod::kRing, {}), 1);
  EXPECT_EQ(BalanceOf(ContextMethod::kRing, {{0, 0}, {0, 0}}), 1);
  EXPECT_EQ(CriticalPath(ContextMethod::kAllGather, {}), 0);
}

}  // namespace
}  // namespace troupe
