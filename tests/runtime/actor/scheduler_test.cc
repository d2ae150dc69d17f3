#include "runtime/actor/scheduler.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/actor/actor.h"
#include "runtime/actor/await.h"
#include "runtime/sim/virtual_clock.h"
#include "tests/support/patience.h"

namespace troupe {
namespace {

struct Note {
  int number = 0;
};
struct Nap {
  int64_t ms = 0;
};

// Writes down what it handles, in one log for all its kind.
class Scribe : public Actor<Scribe, Note, Nap> {
 public:
  Scribe(std::string label, std::vector<std::string>& log) : label_(std::move(label)), log_(log) {}
  Status On(Note note) {
    log_.push_back(label_ + std::to_string(note.number));
    return {};
  }
  Task<Status> On(Nap nap) {
    log_.push_back(label_ + " sleeps");
    co_await Sleep(nap.ms);
    log_.push_back(label_ + " wakes");
    co_return Status{};
  }

 private:
  const std::string label_;
  std::vector<std::string>& log_;
};

struct SchedulerTest : ::testing::Test {
  // Runs what is due until nothing ever will be, on virtual time.
  void RunToTheEnd() {
    for (;;) {
      scheduler.RunUntilIdle();
      const int64_t next_ns = scheduler.NextDeadlineNs();
      if (next_ns == TimerWheel::kNever) return;
      clock.AdvanceTo(std::max(next_ns, clock.NowNs()));
    }
  }
  VirtualClock clock{};
  Scheduler scheduler{{.clock = &clock}};
  std::vector<std::string> log{};
};

TEST_F(SchedulerTest, ATurnEndsAfterItsMessages) {
  auto a = scheduler.Spawn<Scribe>({.name = "a"}, "a", log);
  auto b = scheduler.Spawn<Scribe>({.name = "b"}, "b", log);
  const int many = Scheduler::kMessagesPerTurn + 6;
  for (int i = 0; i < many; ++i) ASSERT_TRUE(a.Send(Note{i}).ok());
  ASSERT_TRUE(b.Send(Note{0}).ok());
  scheduler.RunUntilIdle();
  ASSERT_EQ(log.size(), static_cast<size_t>(many) + 1);
  EXPECT_EQ(log[Scheduler::kMessagesPerTurn], "b0") << "the first actor starved the second";
  EXPECT_EQ(log.back(), "a" + std::to_string(many - 1));
}

TEST_F(SchedulerTest, ASuspendedHandlerHoldsBackTheNextMessageOfItsActorOnly) {
  auto a = scheduler.Spawn<Scribe>({.name = "a"}, "a", log);
  auto b = scheduler.Spawn<Scribe>({.name = "b"}, "b", log);
  ASSERT_TRUE(a.Send(Nap{10}).ok());
  ASSERT_TRUE(a.Send(Note{1}).ok());
  ASSERT_TRUE(b.Send(Note{1}).ok());
  RunToTheEnd();
  EXPECT_EQ(log, (std::vector<std::string>{"a sleeps", "b1", "a wakes", "a1"}));
  EXPECT_EQ(clock.NowNs(), 10'000'000);
}

TEST_F(SchedulerTest, TimersFireAtTheirTimeAndCancelOnce) {
  std::vector<std::pair<int, int64_t>> fired;
  const auto at = [&](int id) { return [&, id] { fired.emplace_back(id, clock.NowNs()); }; };
  scheduler.After(30, at(30));
  scheduler.After(5, at(5));
  const TimerId cancelled = scheduler.After(10, at(10));
  EXPECT_TRUE(scheduler.Cancel(cancelled));
  EXPECT_FALSE(scheduler.Cancel(cancelled));
  const TimerId reused = scheduler.After(20, at(20));
  EXPECT_EQ(reused.slot, cancelled.slot);
  EXPECT_FALSE(scheduler.Cancel(cancelled)) << "an old id cancelled the slot's next timer";
  RunToTheEnd();
  EXPECT_EQ(fired, (std::vector<std::pair<int, int64_t>>{
                       {5, 5'000'000}, {20, 20'000'000}, {30, 30'000'000}}));
  EXPECT_FALSE(scheduler.Cancel(reused));
}

class Ticker : public Actor<Ticker, Note> {
 public:
  Ticker(int& ticks) : ticks_(ticks) {}
  Status OnStart() override {
    Tick();
    return {};
  }
  Status On(Note) { return MakeError(ErrorCode::kFailed, "asked to fail"); }

 private:
  void Tick() {
    ++ticks_;
    context().After(10, [this] { Tick(); });
  }
  int& ticks_;
};

TEST_F(SchedulerTest, ATimerOfAnEndedActorDoesNotRun) {
  int ticks = 0;
  auto ticker = scheduler.Spawn<Ticker>({.name = "ticker"}, ticks);
  for (int i = 0; i < 3; ++i) {
    clock.AdvanceMs(10);
    scheduler.RunUntilIdle();
  }
  EXPECT_EQ(ticks, 4);
  scheduler.End(ticker);
  RunToTheEnd();
  EXPECT_EQ(ticks, 4);
}

TEST_F(SchedulerTest, PollersRunEveryPassUntilRemoved) {
  int calls = 0;
  int left = 3;
  const PollerId poller = scheduler.AddPoller(
      [&] {
        ++calls;
        return left > 0 ? left-- : 0;
      },
      -1, nullptr);
  scheduler.RunUntilIdle();
  EXPECT_EQ(calls, 4) << "idle only once a poller has nothing";
  scheduler.RemovePoller(poller);
  scheduler.RunUntilIdle();
  EXPECT_EQ(calls, 4);
}

// While messages keep coming the loop only polls for them: timers and other pollers get their turn
// all the same.
TEST(SchedulerSpin, ASpinningPollerThatAlwaysHasWorkStarvesNothing) {
  Scheduler scheduler;
  bool in_pass = false;
  int passes = 0;
  int spins = 0;
  scheduler.AddPoller(
      [&] {
        ++passes;
        in_pass = true;
        return 0;
      },
      -1, nullptr);
  scheduler.AddPoller(
      [&] {
        if (std::exchange(in_pass, false)) return 0;
        ++spins;
        return 1;
      },
      -1, nullptr, Polling::kSpinning);
  scheduler.After(2, [&] { scheduler.Stop(); });
  scheduler.Run();
  EXPECT_GT(spins, passes) << "several polls a pass";
  EXPECT_GE(passes, 2);
}

TEST_F(SchedulerTest, FindsLivingActorsByNameAndMessages) {
  auto a = scheduler.Spawn<Scribe>({.name = "a"}, "a", log);
  auto found = scheduler.Find<Note>("a");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(*found, ActorRef<Note>(a));
  EXPECT_EQ(scheduler.Find<Down>("a").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(scheduler.Find<Note>("b").error().message, "no living actor is named b");
  scheduler.End(a);
  EXPECT_FALSE(scheduler.Find<Note>("a").ok());
  const Status late = a.Send(Note{1});
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::kStale);
}

TEST_F(SchedulerTest, AnEndedActorsCellServesTheNextUnderANewIncarnation) {
  auto first = scheduler.Spawn<Scribe>({.name = "first"}, "1.", log);
  ASSERT_TRUE(first.Send(Note{1}).ok());
  scheduler.End(first);
  auto second = scheduler.Spawn<Scribe>({.name = "second"}, "2.", log);
  EXPECT_EQ(first.cell(), second.cell());
  EXPECT_FALSE(first.alive());
  EXPECT_FALSE(first.Send(Note{2}).ok());
  ASSERT_TRUE(second.Send(Note{3}).ok());
  scheduler.RunUntilIdle();
  EXPECT_EQ(log, (std::vector<std::string>{"2.3"}));
}

// Whether this thread of ours waits in the kernel.
bool IsAsleep(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string stat;
  std::getline(file, stat);  // "ID (NAME) STATE …"
  const size_t name_end = stat.rfind(") ");
  return name_end != std::string::npos && stat[name_end + 2] == 'S';
}

// A real clock, real sleep. The scheduler is asleep when the message comes.
TEST(SchedulerThreads, AMessageFromAnotherThreadWakesASleeper) {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  {
    Scheduler scheduler({.spin_us = 0});
    std::atomic<bool> armed = false;  // the last before it sleeps
    scheduler.AddPoller([] { return 0; }, fd, [&] { return armed = true; });
    std::vector<std::string> log;
    auto scribe = scheduler.Spawn<Scribe>({.name = "scribe"}, "s", log);
    const pid_t owner = gettid();
    std::thread sender([&] {
      for (int i = 0; i < 3; ++i) {
        EXPECT_TRUE(testing::Eventually([&] { return armed && IsAsleep(owner); }));
        EXPECT_TRUE(scribe.Send(Note{i}).ok());
      }
      scheduler.Stop();
    });
    scheduler.Run();
    sender.join();
    EXPECT_EQ(log, (std::vector<std::string>{"s0", "s1", "s2"}));
    EXPECT_GT(scheduler.counters().sleeps, 0);
  }
  close(fd);
}

TEST(SchedulerThreads, APollersDescriptorWakesASleeper) {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  {
    Scheduler scheduler({.spin_us = 0});
    std::atomic<bool> armed = false;
    int got = 0;
    scheduler.AddPoller(
        [&] {
          uint64_t count = 0;
          if (read(fd, &count, sizeof(count)) < 0) return 0;
          got += static_cast<int>(count);
          scheduler.Stop();
          return 1;
        },
        fd, [&] { return armed = true; });
    const pid_t owner = gettid();
    std::thread writer([&] {
      EXPECT_TRUE(testing::Eventually([&] { return armed && IsAsleep(owner); }));
      const uint64_t count = 7;
      EXPECT_EQ(write(fd, &count, sizeof(count)), ssize_t{sizeof(count)});
    });
    scheduler.Run();
    writer.join();
    EXPECT_EQ(got, 7);
  }
  close(fd);
}

class Counter : public Actor<Counter, Note> {
 public:
  Counter(int expected, std::vector<int>& next) : left_(expected), next_(next) {}
  Status On(Note note) {
    const int sender = note.number / 1'000'000;
    if (note.number % 1'000'000 != next_[static_cast<size_t>(sender)]++) {
      return MakeError(ErrorCode::kFailed, "sender {}: out of order", sender);
    }
    if (--left_ == 0) context().scheduler().Stop();
    return {};
  }

 private:
  int left_;
  std::vector<int>& next_;
};

// Threads that send at seeded moments, so that pushes meet the owner awake, about to park, parked
// and waking. A lost wake-up hangs here; the interleavings of the inbox alone are in inbox_test.
TEST(SchedulerThreads, NoWakeUpIsLostByAnySeed) {
  constexpr int kSenders = 3;
  constexpr int kEach = 40;
  for (uint32_t seed = 0; seed < 30; ++seed) {
    Scheduler scheduler({.spin_us = seed % 3, .trace_handlers = seed % 2 == 0});
    std::vector<Down> downs;
    scheduler.SetOnDown([&](const Down& down) {
      downs.push_back(down);
      scheduler.Stop();
    });
    std::vector<int> next(kSenders, 0);
    auto counter = scheduler.Spawn<Counter>({.name = "counter"}, kSenders * kEach, next);
    std::vector<std::thread> senders;
    for (int s = 0; s < kSenders; ++s) {
      senders.emplace_back([=] {
        std::minstd_rand random(seed * 31 + static_cast<uint32_t>(s) + 1);
        for (int i = 0; i < kEach; ++i) {
          const auto pause = random() % 8;
          if (pause == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 60));
          for (unsigned spin = 0; spin < pause * 20; ++spin) asm volatile("");
          ASSERT_TRUE(counter.Send(Note{s * 1'000'000 + i}).ok());
        }
      });
    }
    scheduler.Run();
    for (auto& sender : senders) sender.join();
    ASSERT_TRUE(downs.empty()) << "seed " << seed << ": " << downs[0].error.message;
    EXPECT_EQ(next, std::vector<int>(kSenders, kEach));
  }
}

}  // namespace
}  // namespace troupe
