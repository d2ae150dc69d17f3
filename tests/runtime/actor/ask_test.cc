#include "runtime/actor/ask.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "runtime/actor/actor.h"
#include "runtime/sim/virtual_clock.h"
#include "tests/support/patience.h"

namespace troupe {
namespace {

enum class Conduct { kAnswers, kFails, kKeeps, kDrops, kDies };

struct Lookup {
  int number = 0;
  Reply<int> reply;
};
struct Go {
  int number = 0;
};

class Directory : public Actor<Directory, Lookup> {
 public:
  explicit Directory(Conduct conduct) : conduct_(conduct) {}
  Status On(Lookup lookup) {
    switch (conduct_) {
      case Conduct::kAnswers:
        lookup.reply.Send(lookup.number * 2);
        break;
      case Conduct::kFails:
        lookup.reply.Fail(MakeError(ErrorCode::kNotFound, "no such number"));
        break;
      case Conduct::kKeeps:
        kept_.push_back(std::move(lookup.reply));
        break;
      case Conduct::kDrops:
        break;
      case Conduct::kDies:
        kept_.push_back(std::move(lookup.reply));
        return MakeError(ErrorCode::kFailed, "the directory burnt");
    }
    return {};
  }

 private:
  const Conduct conduct_;
  std::vector<Reply<int>> kept_{};
};

class Asker : public Actor<Asker, Go> {
 public:
  Asker(ActorRef<Lookup> directory, std::vector<Result<int>>& results, int64_t deadline_ms = 50)
      : directory_(directory), results_(results), deadline_ms_(deadline_ms) {}
  Task<Status> On(Go go) {
    results_.push_back(co_await Ask(directory_, Lookup{go.number, {}}, deadline_ms_));
    co_return Status{};
  }

 private:
  ActorRef<Lookup> directory_;
  std::vector<Result<int>>& results_;
  const int64_t deadline_ms_;
};

struct AskTest : ::testing::Test {
  Asker::SelfRef Start(Conduct conduct) {
    scheduler.SetOnDown([](const Down&) {});
    directory = scheduler.Spawn<Directory>({.name = "directory"}, conduct);
    auto asker = scheduler.Spawn<Asker>({.name = "asker"}, directory, results);
    CHECK(asker.Send(Go{21}).ok());
    scheduler.RunUntilIdle();
    return asker;
  }
  VirtualClock clock{};
  std::vector<Result<int>> results{};
  Scheduler scheduler{{.clock = &clock}};
  ActorRef<Lookup> directory{};
};

TEST_F(AskTest, GivesTheValue) {
  Start(Conduct::kAnswers);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(*results[0], 42);
  EXPECT_EQ(scheduler.waits().size(), 0);
  EXPECT_EQ(scheduler.NextDeadlineNs(), TimerWheel::kNever) << "its deadline stayed armed";
}

TEST_F(AskTest, GivesTheError) {
  Start(Conduct::kFails);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].error().message, "no such number");
}

TEST_F(AskTest, ADroppedRequestIsAPeerDownThatNamesThePeer) {
  for (const Conduct conduct : {Conduct::kDrops, Conduct::kDies}) {
    results.clear();
    auto asker = Start(conduct);
    ASSERT_EQ(results.size(), 1u);
    EXPECT_EQ(results[0].error().code, ErrorCode::kPeerDown);
    EXPECT_EQ(results[0].error().message, "directory: the request was dropped unanswered");
    scheduler.End(asker);
    scheduler.End(directory);
  }
}

TEST_F(AskTest, APassedDeadlineSaysWhoWaitedForWhom) {
  Start(Conduct::kKeeps);
  EXPECT_TRUE(results.empty());
  const auto waits = scheduler.waits().Snapshot();
  ASSERT_EQ(waits.size(), 1u);
  EXPECT_EQ(waits[0].waiter, "asker");
  EXPECT_EQ(waits[0].from, "directory");
  EXPECT_EQ(waits[0].owed, "reply");
  clock.AdvanceMs(49);
  scheduler.RunUntilIdle();
  EXPECT_TRUE(results.empty()) << "it gave up early";
  clock.AdvanceMs(1);
  scheduler.RunUntilIdle();
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(results[0].error().message, "asker: reply from directory: deadline 50 ms passed");
  EXPECT_EQ(scheduler.waits().size(), 0);
}

TEST_F(AskTest, AnAnswerAfterTheDeadlineIsIgnored) {
  Start(Conduct::kKeeps);
  clock.AdvanceMs(60);
  scheduler.RunUntilIdle();
  ASSERT_EQ(results.size(), 1u);
  scheduler.End(directory);  // drops the kept reply: a second outcome
  scheduler.RunUntilIdle();
  EXPECT_EQ(results.size(), 1u);
}

TEST_F(AskTest, AnAskerThatEndsWhileItWaitsLeavesNothingBehind) {
  auto asker = Start(Conduct::kKeeps);
  EXPECT_EQ(scheduler.waits().size(), 1);
  scheduler.End(asker);
  EXPECT_EQ(scheduler.waits().size(), 0);
  EXPECT_EQ(scheduler.NextDeadlineNs(), TimerWheel::kNever);
  scheduler.End(directory);
  scheduler.RunUntilIdle();
  EXPECT_TRUE(results.empty());
}

TEST_F(AskTest, AnEndedPeerRefusesAtOnce) {
  auto asker = Start(Conduct::kAnswers);
  scheduler.End(directory);
  ASSERT_TRUE(asker.Send(Go{1}).ok());
  scheduler.RunUntilIdle();
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[1].error().code, ErrorCode::kStale);
}

TEST(AskThreads, AnswersComeBackToTheAskersThread) {
  Scheduler here({.spin_us = 0});
  Scheduler there({.spin_us = 0});
  auto directory = there.Spawn<Directory>({.name = "directory"}, Conduct::kAnswers);
  std::vector<Result<int>> results;
  constexpr int64_t kPatienceMs = std::chrono::milliseconds(testing::kPatience).count();
  auto asker = here.Spawn<Asker>({.name = "asker"}, directory, results, kPatienceMs);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(asker.Send(Go{i}).ok());
  std::thread other([&] { there.Run(); });
  std::atomic<bool> all{false};
  const std::function<void()> look = [&] {
    if (results.size() == 100) {
      all = true;
      here.Stop();
    } else {
      here.After(1, look);
    }
  };
  here.After(1, look);
  here.After(kPatienceMs, [&] { here.Stop(); });
  here.Run();
  there.Stop();
  other.join();
  ASSERT_TRUE(all) << results.size() << " of 100 answers";
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(results[static_cast<size_t>(i)].ok());
    EXPECT_EQ(*results[static_cast<size_t>(i)], 2 * i);
  }
}

}  // namespace
}  // namespace troupe
