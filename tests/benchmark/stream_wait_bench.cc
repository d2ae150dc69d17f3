// What it costs a task of a stream to wait: from the stream's thread to the scheduler's and back
// while both are awake, and an await that need not wait at all.
#include <atomic>
#include <thread>

#include "runtime/actor/stream_wait.h"
#include "tests/benchmark/bench.h"

namespace troupe {
namespace {

constexpr int64_t kAwakeUs = 1'000'000;  // neither thread sleeps

Task<Status> ThereAndBack(int times, int& calls) {
  for (int i = 0; i < times; ++i) co_await OnScheduler([&calls] { ++calls; });
  co_return Status{};
}

Task<Status> AwaitWhatHappened(int times, StreamEvent& event) {
  for (int i = 0; i < times; ++i) co_await event;
  co_return Status{};
}

// Nanoseconds that the task took.
template <typename NewTask>
int64_t NsOf(const NewTask& new_task) {
  Scheduler scheduler({.spin_us = kAwakeUs});
  ThreadStream stream(scheduler, "compute", kAwakeUs);
  const StreamScope scope(stream);
  WorkTime took;
  stream.LaunchTask(scope, new_task(), [&](const WorkTime& time, Status) {
    took = time;
    scheduler.Stop();
  });
  scheduler.Run();
  return took.end_ns - took.start_ns;
}

double UsThereAndBack() {
  constexpr int kTimes = 20'000;
  int calls = 0;
  const int64_t ns = NsOf([&] { return ThereAndBack(kTimes, calls); });
  CHECK(calls == kTimes);
  return static_cast<double>(ns) / 1000 / kTimes;
}

// The least that the machine asks for it: a word that two threads hand to each other.
double UsBetweenBareThreads() {
  constexpr int kTimes = 20'000;
  std::atomic<int> turn{0};
  std::thread other([&turn] {
    for (int i = 0; i < kTimes; ++i) {
      while (turn.load(std::memory_order_acquire) != 2 * i + 1) {
      }
      turn.store(2 * i + 2, std::memory_order_release);
    }
  });
  const double start_ns = bench::WallNs();
  for (int i = 0; i < kTimes; ++i) {
    turn.store(2 * i + 1, std::memory_order_release);
    while (turn.load(std::memory_order_acquire) != 2 * i + 2) {
    }
  }
  const double spent_ns = bench::WallNs() - start_ns;
  other.join();
  return spent_ns / 1000 / kTimes;
}

double NsReady() {
  constexpr int kTimes = 1'000'000;
  StreamEvent event;
  event.Set();
  return static_cast<double>(NsOf([&] { return AwaitWhatHappened(kTimes, event); })) / kTimes;
}

TROUPE_BENCHMARK(StreamWait) {
  bench.Compare({.name = "stream_wait/there_and_back",
                 .unit = "us",
                 .peer_name = "two bare threads",
                 .apart_max = 5},
                UsThereAndBack, UsBetweenBareThreads);
  bench.Measure({.name = "stream_wait/ready", .unit = "ns"}, NsReady);
}

}  // namespace
}  // namespace troupe
