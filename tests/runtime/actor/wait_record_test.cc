#include "runtime/actor/wait_record.h"

#include <gtest/gtest.h>

#include <optional>

namespace troupe {
namespace {

constexpr int64_t kMs = TimerWheel::kTickNs;

struct WaitBoardTest : ::testing::Test {
  WaitBoardTest() {
    board.SetOnDeadline([this](const WaitRecord& record, const std::string& sentence) {
      records.push_back(record);
      sentences.push_back(sentence);
    });
  }
  void AdvanceMs(int64_t delay_ms) {
    now_ns += delay_ms * kMs;
    wheel.Advance(now_ns);
  }
  int64_t now_ns = 0;
  TimerWheel wheel{0};
  WaitBoard board{wheel, now_ns};
  std::vector<WaitRecord> records{};
  std::vector<std::string> sentences{};
};

const WaitSubject kActivation = {.waiter = "stage 2 (rank 5)",
                                 .activity = "forward",
                                 .owed = "activation",
                                 .from = "stage 1 (rank 1)",
                                 .step = 812,
                                 .microbatch = 17,
                                 .deadline_ms = 30'000};

TEST_F(WaitBoardTest, APassedDeadlineIsOneSentence) {
  const int bytes = 33'554'432;
  WaitSubject subject = kActivation;
  subject.about = &bytes;
  subject.detail = [](const void* about) {
    return "0 of " + std::to_string(*static_cast<const int*>(about)) + " bytes";
  };
  WaitHandle wait = board.Begin(subject);
  EXPECT_EQ(board.Snapshot()[0].from, "stage 1 (rank 1) (0 of 33554432 bytes)");
  AdvanceMs(29'999);
  EXPECT_TRUE(sentences.empty());
  EXPECT_FALSE(wait.overdue());
  AdvanceMs(1);
  ASSERT_EQ(sentences.size(), 1u);
  EXPECT_EQ(sentences[0],
            "stage 2 (rank 5): microbatch 17 forward: activation from stage 1 (rank 1): deadline "
            "30000 ms passed in step 812, 0 of 33554432 bytes");
  EXPECT_TRUE(wait.overdue());
  AdvanceMs(100'000);
  EXPECT_EQ(sentences.size(), 1u) << "told twice";
  EXPECT_EQ(board.size(), 1) << "an overdue wait stays until it ends";
}

TEST_F(WaitBoardTest, KnowsTheRanksThatOwe) {
  WaitSubject subject = kActivation;
  const WaitHandle nobody = board.Begin(subject);
  subject.from_rank = 1;
  const WaitHandle one = board.Begin(subject);
  const std::vector<int> missing = {0, 2};
  subject.about = &missing;
  subject.owing = [](const void* about) { return *static_cast<const std::vector<int>*>(about); };
  const WaitHandle several = board.Begin(subject);
  const auto waits = board.Snapshot();
  EXPECT_EQ(waits[0].from_ranks, std::vector<int>());
  EXPECT_EQ(waits[1].from_ranks, std::vector<int>{1});
  EXPECT_EQ(waits[2].from_ranks, missing);
}

TEST_F(WaitBoardTest, AWaitThatEndsInTimeSaysNothing) {
  {
    WaitHandle wait = board.Begin(kActivation);
    AdvanceMs(10'000);
    EXPECT_EQ(board.size(), 1);
  }
  EXPECT_EQ(board.size(), 0);
  AdvanceMs(100'000);
  EXPECT_TRUE(sentences.empty());
}

TEST_F(WaitBoardTest, TheSnapshotListsTheOldestFirst) {
  std::optional<WaitHandle> first = board.Begin(kActivation);
  AdvanceMs(5);
  WaitHandle second = board.Begin({.waiter = "rank 3", .owed = "credit", .from = "rank 4"});
  AdvanceMs(5);
  WaitHandle third = board.Begin({.waiter = "rank 0", .owed = "vote"});
  auto waits = board.Snapshot();
  ASSERT_EQ(waits.size(), 3u);
  EXPECT_EQ(waits[0].owed, "microbatch 17 forward: activation");
  EXPECT_EQ(waits[0].since_ns, 0);
  EXPECT_EQ(waits[0].deadline_ns, 30'000 * kMs);
  EXPECT_EQ(waits[1].waiter, "rank 3");
  EXPECT_EQ(waits[1].since_ns, 5 * kMs);
  EXPECT_EQ(waits[1].deadline_ns, TimerWheel::kNever);
  first.reset();
  third.Reset();
  EXPECT_FALSE(third.waiting());
  waits = board.Snapshot();
  ASSERT_EQ(waits.size(), 1u);
  EXPECT_EQ(waits[0].waiter, "rank 3");
}

TEST_F(WaitBoardTest, TheCallbackMayEndTheWait) {
  WaitHandle wait = board.Begin({.waiter = "a", .owed = "b", .deadline_ms = 1});
  int told = 0;
  board.SetOnDeadline([&](const WaitRecord&, const std::string&) {
    ++told;
    wait.Reset();
  });
  AdvanceMs(1);
  EXPECT_EQ(told, 1);
  EXPECT_EQ(board.size(), 0);
}

TEST_F(WaitBoardTest, AMovedHandleKeepsTheWait) {
  WaitHandle first = board.Begin(kActivation);
  WaitHandle second = std::move(first);
  EXPECT_TRUE(second.waiting());
  second = board.Begin({.waiter = "a", .owed = "b"});
  EXPECT_EQ(board.size(), 1) << "assignment ends the wait it replaces";
}

}  // namespace
}  // namespace troupe
