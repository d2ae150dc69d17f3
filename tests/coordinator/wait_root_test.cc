#include "coordinator/wait_root.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

proto::WaitEdge Wait(const std::string& waiter, const std::string& owed, const std::string& from,
                     std::vector<int32_t> from_ranks, int64_t waited_ms) {
  proto::WaitEdge edge;
  edge.set_waiter(waiter);
  edge.set_owed(owed);
  edge.set_from(from);
  edge.mutable_from_ranks()->Assign(from_ranks.begin(), from_ranks.end());
  edge.set_waited_ms(waited_ms);
  return edge;
}

WaitsOfRank Rank(int rank, std::vector<proto::WaitEdge> edges) {
  return {.name = "rank " + std::to_string(rank) + " (host a)",
          .answered = true,
          .edges = std::move(edges)};
}

std::string Root(const std::vector<WaitsOfRank>& ranks) {
  const auto root = RootOfWaits(ranks);
  return root ? root->sentence : "";
}

const proto::WaitEdge kSchedule =
    Wait("schedule", "step: votes", "ranks (missing: 0, 1, 2 of 3)", {0, 1, 2}, 400'000);

TEST(RootOfWaitsTest, IsTheStreamThatEveryChainEndsAt) {
  const std::vector<WaitsOfRank> ranks = {
      Rank(0, {kSchedule, Wait("rank 0", "gradient", "stage 1 (rank 1)", {1}, 390'000)}),
      Rank(1, {Wait("rank 1", "activation gradient", "stage 2 (rank 2)", {2}, 380'000)}),
      Rank(2, {Wait("rank 2", "the end of Forward of microbatch 3 on stage 2", "its compute stream",
                    {}, 301'500)})};
  EXPECT_EQ(Root(ranks),
            "rank 2 waits for the end of Forward of microbatch 3 on stage 2 from its compute "
            "stream for 301 s");
  EXPECT_EQ(RootOfWaits(ranks)->waited_ms, 301'500);
}

TEST(RootOfWaitsTest, ALostMessageIsOwedByARankThatWaitsForNothing) {
  EXPECT_EQ(Root({Rank(0, {kSchedule}),
                  Rank(1, {Wait("rank 1", "activation", "stage 0 (rank 0)", {2}, 300'000)}),
                  Rank(2, {})}),
            "rank 1 waits for activation from stage 0 (rank 0) for 300 s; rank 2 (host a) waits "
            "for nothing");
  // Rank 0's schedule waits for rank 1, which waits for rank 0's executor, and that for nothing.
  EXPECT_EQ(
      Root({Rank(0, {Wait("schedule", "step: votes", "ranks (missing: 1 of 2)", {1}, 400'000)}),
            Rank(1, {Wait("rank 1", "activation", "stage 0 (rank 0)", {0}, 300'000)})}),
      "rank 1 waits for activation from stage 0 (rank 0) for 300 s; rank 0 (host a) waits for "
      "nothing");
  // A commit is the schedule's to give.
  EXPECT_EQ(Root({Rank(0, {Wait("schedule", "commit", "the disk", {}, 2000),
                           Wait("rank 0", "commit", "schedule (rank 0)", {0}, 9000)}),
                  Rank(1, {Wait("rank 1", "commit", "schedule (rank 0)", {0}, 9000)})}),
            "schedule waits for commit from the disk for 2 s");
  // The schedule's own rank owes nothing else.
  EXPECT_EQ(
      Root({Rank(0, {Wait("schedule", "step: votes", "ranks (missing: 0 of 1)", {0}, 5000)})}),
      "schedule waits for step: votes from ranks (missing: 0 of 1) for 5 s");
}

TEST(RootOfWaitsTest, ARankThatDoesNotAnswerGoesBeforeAllWaits) {
  std::vector<WaitsOfRank> ranks = {Rank(0, {kSchedule}), Rank(1, {})};
  ranks[1].answered = false;
  EXPECT_EQ(Root(ranks), "rank 1 (host a) does not answer");
  EXPECT_EQ(RootOfWaits(ranks)->waited_ms, std::nullopt);
  ranks[1].silence = "rank 1 has said nothing for 5 s";
  EXPECT_EQ(Root(ranks), "rank 1 has said nothing for 5 s");
}

// Rank 0 waits for two: one of them in a circle with it, the other for nothing.
TEST(RootOfWaitsTest, WhoWaitsForNothingGoesBeforeACircle) {
  EXPECT_EQ(
      Root({Rank(0, {Wait("rank 0", "all-reduce", "ranks 1, 2", {1, 2}, 9000)}),
            Rank(1, {Wait("rank 1", "all-reduce", "ranks 0, 2", {0, 2}, 8000)}), Rank(2, {})}),
      "rank 0 waits for all-reduce from ranks 1, 2 for 9 s; rank 2 (host a) waits for "
      "nothing");
}

TEST(RootOfWaitsTest, ACircleIsToldWholeFromItsLongestWait) {
  const std::vector<WaitsOfRank> ranks = {
      Rank(0, {Wait("rank 0", "gradient", "rank 1", {1}, 2000)}),
      Rank(1, {Wait("rank 1", "activation", "rank 0", {0}, 3000)})};
  EXPECT_EQ(Root(ranks),
            "rank 1 waits for activation from rank 0 for 3 s; rank 0 waits for gradient from rank "
            "1 for 2 s: each waits for the next, the last for the first, so a message between two "
            "of them was most likely lost");
  EXPECT_EQ(RootOfWaits(ranks)->waited_ms, 2000);
}

// What rank 1 sent rank 2 never came. All else waits for those two, for longer even.
TEST(RootOfWaitsTest, WhoWaitsForACircleIsNoPartOfIt) {
  EXPECT_EQ(Root({Rank(0, {kSchedule, Wait("rank 0", "gradient", "rank 1", {1}, 390'000)}),
                  Rank(1, {Wait("rank 1", "gradient", "rank 2", {2}, 301'000)}),
                  Rank(2, {Wait("rank 2", "activation", "rank 1", {1}, 302'000)})}),
            "rank 2 waits for activation from rank 1 for 302 s; rank 1 waits for gradient from "
            "rank 2 for 301 s: each waits for the next, the last for the first, so a message "
            "between two of them was most likely lost");
}

// Rank 1 has sent all and voted; rank 2 does not get the last of it.
TEST(RootOfWaitsTest, ACircleMayLeadOverTheSchedule) {
  EXPECT_EQ(
      Root({Rank(0, {Wait("schedule", "step: votes", "ranks (missing: 2 of 3)", {2}, 303'000),
                     Wait("rank 0", "commit", "schedule (rank 0)", {0}, 302'000)}),
            Rank(1, {Wait("rank 1", "commit", "schedule (rank 0)", {0}, 301'000)}),
            Rank(2, {Wait("rank 2", "activation", "rank 1", {1}, 300'000)})}),
      "schedule waits for step: votes from ranks (missing: 2 of 3) for 303 s; rank 2 waits for "
      "activation from rank 1 for 300 s; rank 1 waits for commit from schedule (rank 0) for 301 "
      "s: each waits for the next, the last for the first, so a message between two of them "
      "was most likely lost");
}

TEST(RootOfWaitsTest, OfALongCircleTheLongestWaitsNeighboursAreTold) {
  std::vector<WaitsOfRank> ranks;
  for (int rank = 0; rank < 10; ++rank) {
    const int next = (rank + 1) % 10;
    ranks.push_back(Rank(rank, {Wait("rank " + std::to_string(rank), "activation",
                                     "rank " + std::to_string(next), {next}, 1000 * (rank + 1))}));
  }
  const std::string root = Root(ranks);
  EXPECT_TRUE(root.starts_with("rank 9 waits for activation from rank 0 for 10 s; rank 0 waits"));
  EXPECT_NE(root.find("rank 6 waits for activation from rank 7 for 7 s; 2 more: each waits"),
            std::string::npos)
      << root;
}

TEST(RootOfWaitsTest, OfSeveralRootsTheOldest) {
  EXPECT_EQ(Root({Rank(0, {Wait("rank 0", "tokens", "files", {}, 1000)}),
                  Rank(1, {Wait("rank 1", "weights", "files", {}, 2000)})}),
            "rank 1 waits for weights from files for 2 s");
}

TEST(RootOfWaitsTest, NobodyWaits) {
  EXPECT_EQ(RootOfWaits({}), std::nullopt);
  const std::vector<WaitsOfRank> ranks = {Rank(0, {}), Rank(1, {})};
  EXPECT_EQ(RootOfWaits(ranks), std::nullopt);
}

TEST(RootOfWaitsTest, RanksThatAreNotThereAreNobody) {
  EXPECT_EQ(Root({Rank(0, {Wait("rank 0", "gradient", "rank 7", {7, -1}, 2000)})}),
            "rank 0 waits for gradient from rank 7 for 2 s");
}

}  // namespace
}  // namespace troupe
