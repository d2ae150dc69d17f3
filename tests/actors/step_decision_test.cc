#include "actors/step_decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>

#include "kernels/squared_norm.h"

namespace troupe {
namespace {

proto::Vote LossVote(int rank, std::vector<std::tuple<int, double, int>> losses) {
  proto::Vote vote;
  vote.set_rank(rank);
  vote.set_finite(true);
  for (const auto& [microbatch, sum, tokens] : losses) {
    auto* loss = vote.add_losses();
    loss->set_microbatch(microbatch);
    loss->set_loss_sum(sum);
    loss->set_num_tokens(tokens);
  }
  return vote;
}

void AddNode(proto::Vote& vote, int parameter, int first, int leaves, double sum) {
  auto* node = vote.add_norm_nodes();
  node->set_parameter(parameter);
  node->set_first_leaf(first);
  node->set_num_leaves(leaves);
  node->set_sum(sum);
}

// The vote of whoever holds that run of parameter 0's leaves.
void AddRun(proto::Vote& vote, int64_t total_leaves, int64_t first, std::span<const double> run) {
  for (const NormNode& node : SquaredNormNodes(total_leaves, first, run)) {
    AddNode(vote, 0, static_cast<int>(node.first_leaf), static_cast<int>(node.num_leaves),
            node.sum);
  }
}

TEST(AddLossesTest, WeighsByTokensInMicrobatchOrder) {
  const std::vector votes = {LossVote(1, {{1, 0.1, 3}, {2, 0.2, 4}}), LossVote(0, {{0, 0.3, 1}})};
  const auto sums = AddLosses(votes, 3);
  ASSERT_TRUE(sums.ok());
  EXPECT_EQ(sums->loss_sum, 0.3 + 0.1 + 0.2);
  EXPECT_EQ(sums->num_tokens, 8);
  EXPECT_TRUE(sums->finite);
}

TEST(AddLossesTest, AMicrobatchWithoutALabelIsNotALostOne) {
  const auto some = AddLosses(std::vector{LossVote(0, {{0, 0, 0}, {1, 3, 2}})}, 2);
  ASSERT_TRUE(some.ok());
  EXPECT_EQ(some->Loss(), 1.5);
  const auto none = AddLosses(std::vector{LossVote(0, {{0, 0, 0}, {1, 0, 0}})}, 2);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->Loss(), std::nullopt);
  EXPECT_TRUE(none->finite);
}

TEST(AddLossesTest, ALostOrDoubledMicrobatchIsAnError) {
  const auto lost = AddLosses(std::vector{LossVote(0, {{0, 1, 1}})}, 2);
  ASSERT_FALSE(lost.ok());
  EXPECT_THAT(lost.error().message, ::testing::HasSubstr("microbatch 1"));
  EXPECT_FALSE(AddLosses(std::vector{LossVote(0, {{0, 1, 1}, {0, 1, 1}})}, 1).ok());
  EXPECT_FALSE(AddLosses(std::vector{LossVote(0, {{7, 1, 1}})}, 1).ok());
}

// Votes come as they come; the parts of a microbatch are added by rank.
TEST(AddLossesTest, RanksThatShareAMicrobatchAddUpItsLoss) {
  std::vector votes = {LossVote(5, {{0, 0.1, 3}, {1, 2, 1}}), LossVote(6, {{1, 0.25, 2}}),
                       LossVote(3, {{0, 0.7, 1}})};
  votes.push_back(LossVote(4, {{0, 1e-9, 0}, {1, 4, 1}}));
  votes.push_back(LossVote(9, {}));
  std::mt19937 engine(7);
  votes[1].add_losses()->CopyFrom(LossVote(0, {{2, 0, 0}}).losses(0));
  votes[2].add_losses()->CopyFrom(LossVote(0, {{2, 0, 0}}).losses(0));
  votes[0].add_losses()->CopyFrom(LossVote(0, {{2, 0, 0}}).losses(0));
  for (int i = 0; i < 20; ++i) {
    std::ranges::shuffle(votes, engine);
    const auto sums = AddLosses(votes, 3, /*ranks_each=*/3);
    ASSERT_TRUE(sums.ok()) << sums.error().message;
    EXPECT_EQ(sums->loss_sum, ((0.7 + 1e-9) + 0.1) + ((4.0 + 2.0) + 0.25));
    EXPECT_EQ(sums->num_tokens, 4 + 4);
  }
}

TEST(AddLossesTest, ALostOrDoubledPartIsAnError) {
  const auto said = [](std::vector<proto::Vote> votes, int ranks_each) {
    const auto sums = AddLosses(votes, 1, ranks_each);
    return sums.ok() ? "none" : sums.error().message;
  };
  EXPECT_EQ(said({LossVote(0, {{0, 1, 1}}), LossVote(1, {{0, 1, 1}})}, 2), "none");
  EXPECT_EQ(said({LossVote(1, {{0, 1, 1}})}, 2),
            "1 of the 2 ranks that share microbatch 0 vote for its loss");
  EXPECT_EQ(said({}, 2), "no vote holds the loss of microbatch 0");
  EXPECT_THAT(said({LossVote(1, {{0, 1, 1}, {0, 1, 1}})}, 2),
              ::testing::HasSubstr("rank 1 votes for microbatch 0 of 1, which is not its or came"));
  EXPECT_THAT(
      said({LossVote(0, {{0, 1, 1}}), LossVote(2, {{0, 1, 1}}), LossVote(1, {{0, 1, 1}})}, 2),
      ::testing::HasSubstr("rank 2 votes for microbatch 0"));
}

TEST(AddLossesTest, AnInfiniteLossIsNotFinite) {
  EXPECT_FALSE(AddLosses(std::vector{LossVote(0, {{0, INFINITY, 1}})}, 1)->finite);
}

TEST(GradientNormTest, ShardsRebuildTheRootOfTheWholeParameter) {
  // Five leaves: ((0+1)+(2+3))+4. One rank votes 0..3 as a node, another the last leaf.
  const double leaves[] = {0.1, 0.2, 0.3, 0.4, 0.5};
  const double root = ((leaves[0] + leaves[1]) + (leaves[2] + leaves[3])) + leaves[4];
  std::vector<proto::Vote> whole(1);
  AddNode(whole[0], 0, 0, 5, root);
  std::vector<proto::Vote> shards(2);
  AddNode(shards[0], 0, 0, 2, leaves[0] + leaves[1]);
  AddNode(shards[1], 0, 2, 2, leaves[2] + leaves[3]);
  AddNode(shards[1], 0, 4, 1, leaves[4]);
  EXPECT_EQ(*GradientNorm(whole, 1), *GradientNorm(shards, 1));
  EXPECT_EQ(*GradientNorm(whole, 1), std::sqrt(root));
}

// Any cut of a parameter into runs of whole leaves rebuilds the same root, bit for bit.
TEST(GradientNormTest, DoesNotDependOnTheSharding) {
  rc::check("sharding", [] {
    const int64_t total = *rc::gen::inRange<int64_t>(1, 200);
    std::mt19937 engine(*rc::gen::inRange<uint32_t>(0, 1000));
    std::uniform_real_distribution<double> uniform(0.0, 1e6);
    std::vector<double> leaves(static_cast<size_t>(total));
    for (double& leaf : leaves) leaf = uniform(engine);
    std::vector<proto::Vote> whole(1);
    AddRun(whole[0], total, 0, leaves);
    std::vector<proto::Vote> shards;
    for (int64_t first = 0; first < total;) {
      const int64_t count = std::min<int64_t>(total - first, *rc::gen::inRange<int64_t>(1, 60));
      AddRun(shards.emplace_back(), total, first,
             std::span(leaves).subspan(static_cast<size_t>(first), static_cast<size_t>(count)));
      first += count;
    }
    RC_ASSERT(*GradientNorm(shards, 1) == *GradientNorm(whole, 1));
  });
}

TEST(GradientNormTest, HolesAndOverlapsAreErrors) {
  std::vector<proto::Vote> votes(1);
  AddNode(votes[0], 0, 0, 1, 1);
  EXPECT_FALSE(GradientNorm(votes, 2).ok());  // parameter 1 is nobody's
  AddNode(votes[0], 0, 2, 1, 1);
  EXPECT_FALSE(GradientNorm(votes, 1).ok());  // leaf 1 is missing
  AddNode(votes[0], 0, 1, 1, 1);
  EXPECT_TRUE(GradientNorm(votes, 1).ok());
  AddNode(votes[0], 0, 0, 2, 2);
  EXPECT_FALSE(GradientNorm(votes, 1).ok());  // leaves 0 and 1 twice
}

TEST(GradientFactorTest, ClipsOnlyAboveTheBound) {
  EXPECT_EQ(GradientFactor(0.5, 1.0, 10), 0.1);
  EXPECT_EQ(GradientFactor(50, 0, 10), 0.1);
  EXPECT_DOUBLE_EQ(GradientFactor(4, 1.0, 10), 0.1 / (4 + 1e-6));
  EXPECT_DEATH((void)GradientFactor(0, 1.0, 0), "mean over 0 tokens");
}

TEST(MeasuredBubbleTest, IsIdleOverMakespan) {
  std::vector<proto::Vote> votes(2);
  votes[0].set_first_action_ns(100);
  votes[0].set_last_action_ns(200);
  votes[0].set_busy_ns(100);
  votes[1].set_first_action_ns(150);
  votes[1].set_last_action_ns(300);
  votes[1].set_busy_ns(100);
  EXPECT_DOUBLE_EQ(MeasuredBubble(votes), 0.5);
  EXPECT_EQ(MeasuredBubble({}), 0);
}

}  // namespace
}  // namespace troupe
