#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/actor/stream_wait.h"

namespace troupe {
namespace {

enum class Kind { kThread, kInline };

struct StreamTest : ::testing::TestWithParam<Kind> {
  std::unique_ptr<Stream> NewStream() {
    if (GetParam() == Kind::kInline) return std::make_unique<InlineStream>(scheduler);
    return std::make_unique<ThreadStream>(scheduler, "compute");
  }
  Scheduler scheduler{{.spin_us = 0}};
};

TEST_P(StreamTest, CompletionsComeInOrderOnTheSchedulersThread) {
  auto stream = NewStream();
  constexpr int kJobs = 500;
  std::vector<int> done;
  int computed = 0;  // written by the stream, read after its completion came
  const auto here = std::this_thread::get_id();
  for (int i = 0; i < kJobs; ++i) {
    stream->Launch([&computed, i] { computed = i; },
                   [&, i](const WorkTime& time) {
                     EXPECT_EQ(std::this_thread::get_id(), here);
                     EXPECT_LE(time.start_ns, time.end_ns);
                     EXPECT_GE(time.cpu_ns, 0);
                     done.push_back(i);
                     if (i == kJobs - 1) scheduler.Stop();
                   });
    EXPECT_TRUE(done.empty()) << "a completion ran inside Launch";
  }
  scheduler.Run();
  ASSERT_EQ(done.size(), size_t{kJobs});
  for (int i = 0; i < kJobs; ++i) EXPECT_EQ(done[static_cast<size_t>(i)], i);
  EXPECT_EQ(computed, kJobs - 1);
}

TEST_P(StreamTest, TheEndWaitsForTheWorkAndDropsItsCompletions) {
  std::atomic<int> worked{0};
  int completed = 0;
  {
    auto stream = NewStream();
    for (int i = 0; i < 20; ++i) {
      stream->Launch([&] { ++worked; }, [&](const WorkTime&) { ++completed; });
    }
  }
  EXPECT_EQ(worked.load(), 20);
  scheduler.RunUntilIdle();
  EXPECT_EQ(completed, 0) << "a completion outlived its stream";
}

TEST_P(StreamTest, MoveOnlyClosuresTravel) {
  auto stream = NewStream();
  int got = 0;
  auto number = std::make_unique<int>(7);
  stream->Launch([number = std::move(number)] { ++*number; },
                 [&, token = std::make_unique<int>(1)](const WorkTime&) {
                   got = *token;
                   scheduler.Stop();
                 });
  scheduler.Run();
  EXPECT_EQ(got, 1);
}

// Says on which thread each piece ran, and whether its frame was destroyed.
struct Witness {
  std::vector<std::thread::id> threads{};
  std::atomic<int> destroyed{0};
};
struct OnDestroyed {
  Witness& witness;
  ~OnDestroyed() { ++witness.destroyed; }
};

Task<Status> AwaitBetween(StreamEvent& event, Witness& witness) {
  const OnDestroyed gone{witness};
  witness.threads.push_back(std::this_thread::get_id());
  co_await event;
  witness.threads.push_back(std::this_thread::get_id());
  co_return Status{};
}

TEST_P(StreamTest, ATaskThatWaitsLeavesTheStreamToOthers) {
  StreamEvent event;
  Witness witness;
  auto stream = NewStream();
  const StreamScope scope(*stream);
  std::vector<std::string> order;
  stream->LaunchTask(scope, AwaitBetween(event, witness), [&](const WorkTime& time, Status status) {
    EXPECT_TRUE(status.ok());
    EXPECT_LE(time.ran_ns, time.end_ns - time.start_ns);
    order.emplace_back("task");
    scheduler.Stop();
  });
  stream->Launch([] {},
                 [&](const WorkTime&) {
                   order.emplace_back("closure");
                   event.Set();
                 });
  scheduler.Run();
  EXPECT_EQ(order, (std::vector<std::string>{"closure", "task"}));
  ASSERT_EQ(witness.threads.size(), 2u);
  EXPECT_EQ(witness.threads[0], witness.threads[1]) << "it goes on where it began";
  EXPECT_EQ(witness.destroyed, 1);
}

TEST_P(StreamTest, AnEventThatHappenedIsNoWait) {
  StreamEvent event;
  event.Set();
  Witness witness;
  auto stream = NewStream();
  const StreamScope scope(*stream);
  std::vector<int> order;
  stream->LaunchTask(scope, AwaitBetween(event, witness), [&](const WorkTime& time, Status) {
    EXPECT_EQ(time.ran_ns, time.end_ns - time.start_ns) << "it left the stream";
    order.push_back(1);
  });
  stream->Launch([] {},
                 [&](const WorkTime&) {
                   order.push_back(2);
                   scheduler.Stop();
                 });
  scheduler.Run();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

Task<Status> Nested(StreamEvent& event, int depth) {
  if (depth > 0) co_return co_await Nested(event, depth - 1);
  co_await event;
  co_return MakeError(ErrorCode::kFailed, "from below");
}

TEST_P(StreamTest, AWaitDeepInATaskSuspendsAllOfItAndItsErrorComesBack) {
  StreamEvent event;
  auto stream = NewStream();
  const StreamScope scope(*stream);
  std::string error;
  stream->LaunchTask(scope, Nested(event, 5), [&](const WorkTime&, Status status) {
    error = status.error().message;
    scheduler.Stop();
  });
  scheduler.Post([&] { event.Set(); });
  scheduler.Run();
  EXPECT_EQ(error, "from below");
}

Task<Status> ThereAndBack(int times, int& calls) {
  for (int i = 0; i < times; ++i) co_await OnScheduler([&calls] { ++calls; });
  co_await StreamSleep(2);
  co_return Status{};
}

TEST_P(StreamTest, ATaskCallsTheSchedulersThreadAndSleeps) {
  auto stream = NewStream();
  const StreamScope scope(*stream);
  int calls = 0;
  int64_t waited_ns = 0;
  stream->LaunchTask(scope, ThereAndBack(100, calls), [&](const WorkTime& time, Status) {
    waited_ns = time.end_ns - time.start_ns - time.ran_ns;
    scheduler.Stop();
  });
  scheduler.Run();
  EXPECT_EQ(calls, 100);
  EXPECT_GE(waited_ns, 2'000'000);
}

TEST_P(StreamTest, WhoLaunchedATaskIsToldOfItsWaits) {
  StreamEvent first;
  StreamEvent second;
  first.Set();  // no wait
  auto stream = NewStream();
  const StreamScope scope(*stream);
  std::vector<std::string> order;
  const auto waits = [](StreamEvent& a, StreamEvent& b) -> Task<Status> {
    co_await a;
    co_await OnScheduler([] {});  // over as it begins
    co_await b;
    co_return Status{};
  };
  stream->LaunchTask(
      scope, waits(first, second),
      [&](const WorkTime&, Status) {
        order.emplace_back("done");
        scheduler.Stop();
      },
      [&](bool waiting) {
        order.emplace_back(waiting ? "waits" : "goes on");
        if (waiting) scheduler.Post([&] { second.Set(); });
      });
  scheduler.Run();
  EXPECT_EQ(order, (std::vector<std::string>{"waits", "goes on", "done"}));
}

// Whether the task waits already, is about to, or has been woken: its frame goes, and no completion
// comes.
TEST_P(StreamTest, AStreamThatEndsDestroysTasksWhereverTheyAre) {
  for (int passes = 0; passes < 4; ++passes) {
    StreamEvent event;
    Witness witness;
    bool completed = false;
    {
      auto stream = NewStream();
      const StreamScope scope(*stream);
      stream->LaunchTask(scope, AwaitBetween(event, witness),
                         [&](const WorkTime&, Status) { completed = true; });
      if (passes > 0) scheduler.RunUntilIdle();
      if (passes > 1) event.Set();
      if (passes > 2) scheduler.RunUntilIdle();
      if (passes > 2) continue;  // it may have completed
    }
    EXPECT_EQ(witness.destroyed, 1) << passes;
    event.Set();  // wakes nobody
    scheduler.RunUntilIdle();
    EXPECT_FALSE(completed) << passes;
  }
}

TEST_P(StreamTest, AScopeThatEndsTakesItsTasksAlong) {
  StreamEvent event;
  Witness kept;
  Witness dropped;
  auto stream = NewStream();
  const StreamScope scope(*stream);
  bool completed = false;
  {
    const StreamScope ended(*stream);
    stream->LaunchTask(scope, AwaitBetween(event, kept),
                       [&](const WorkTime&, Status) { scheduler.Stop(); });
    StreamEvent never;
    stream->LaunchTask(ended, AwaitBetween(never, dropped),
                       [&](const WorkTime&, Status) { completed = true; });
    // Both wait when this has come back.
    bool both_wait = false;
    stream->Launch([] {}, [&](const WorkTime&) { both_wait = true; });
    while (!both_wait) scheduler.RunUntilIdle();
  }
  EXPECT_EQ(dropped.destroyed, 1);
  EXPECT_EQ(kept.destroyed, 0);
  event.Set();
  scheduler.Run();
  EXPECT_FALSE(completed);
  EXPECT_EQ(kept.destroyed, 1);
}

Task<Status> Hold(StreamSemaphore& room, std::vector<int>& order, int number) {
  co_await room;
  order.push_back(number);
  co_return Status{};
}

TEST_P(StreamTest, ASemaphoreLetsSoManyInAndTheOthersInTheirOrder) {
  StreamSemaphore room(2);
  auto stream = NewStream();
  const StreamScope scope(*stream);
  std::vector<int> order;  // the stream's, read while it has nothing to do
  size_t ended = 0;
  for (int i = 0; i < 5; ++i) {
    stream->LaunchTask(scope, Hold(room, order, i), [&](const WorkTime&, Status) {
      if (++ended >= 2) scheduler.Stop();
    });
  }
  scheduler.Run();
  // Behind all of them: whoever found no room waits when it comes back.
  stream->Launch([] {}, [&](const WorkTime&) { scheduler.Stop(); });
  scheduler.Run();
  scheduler.RunUntilIdle();
  EXPECT_EQ(order, (std::vector<int>{0, 1}));
  for (size_t given = 3; given <= 5; ++given) {
    room.Give();
    scheduler.Run();
    ASSERT_EQ(ended, given);
  }
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
  room.Give();  // to nobody: the next one's
  stream->LaunchTask(scope, Hold(room, order, 5),
                     [&](const WorkTime&, Status) { scheduler.Stop(); });
  scheduler.Run();
  EXPECT_EQ(order.back(), 5);
}

TEST_P(StreamTest, ATaskThatWaitsForRoomMayBeDestroyed) {
  StreamSemaphore room(0);
  auto stream = NewStream();
  std::vector<int> order;
  {
    const StreamScope scope(*stream);
    stream->LaunchTask(scope, Hold(room, order, 0), [](const WorkTime&, Status) {});
    stream->Launch([] {}, [&](const WorkTime&) { scheduler.Stop(); });
    scheduler.Run();
    scheduler.RunUntilIdle();
  }
  room.Give();
  EXPECT_TRUE(order.empty());
}

INSTANTIATE_TEST_SUITE_P(Streams, StreamTest, ::testing::Values(Kind::kThread, Kind::kInline),
                         [](const auto& param_info) {
                           return param_info.param == Kind::kThread ? "Thread" : "Inline";
                         });

TEST(ThreadStream, SaysSinceWhenItWorks) {
  Scheduler scheduler({.spin_us = 0});
  ThreadStream stream(scheduler, "compute");
  EXPECT_EQ(stream.busy_since_ns(), 0);
  std::atomic<bool> working{false};
  std::atomic<bool> enough{false};
  const int64_t launched_ns = SystemClock().NowNs();
  stream.Launch(
      [&] {
        working = true;
        working.notify_one();
        enough.wait(false);
      },
      [&](const WorkTime&) { scheduler.Stop(); });
  working.wait(false);
  EXPECT_GE(stream.busy_since_ns(), launched_ns);
  EXPECT_LE(stream.busy_since_ns(), SystemClock().NowNs());
  enough = true;
  enough.notify_one();
  scheduler.Run();
  EXPECT_EQ(stream.busy_since_ns(), 0) << "its end is posted later";
}

TEST(ThreadStream, WorkWaitingForACoreIsNotCpuTime) {
  Scheduler scheduler({.spin_us = 0});
  ThreadStream stream(scheduler, "compute");
  WorkTime seen;
  stream.Launch([] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); },
                [&](const WorkTime& time) {
                  seen = time;
                  scheduler.Stop();
                });
  scheduler.Run();
  EXPECT_GE(seen.end_ns - seen.start_ns, 20'000'000);
  EXPECT_LT(seen.cpu_ns, 10'000'000);
}

}  // namespace
}  // namespace troupe
