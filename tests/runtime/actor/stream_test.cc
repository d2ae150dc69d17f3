#include "runtime/actor/stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

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

INSTANTIATE_TEST_SUITE_P(Streams, StreamTest, ::testing::Values(Kind::kThread, Kind::kInline),
                         [](const auto& param_info) {
                           return param_info.param == Kind::kThread ? "Thread" : "Inline";
                         });

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
