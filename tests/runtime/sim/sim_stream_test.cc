#include "runtime/sim/sim_stream.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/actor/stream_wait.h"

namespace troupe {
namespace {

class SimStreamTest : public ::testing::Test {
 protected:
  SimStreamTest() {
    driver_.Add([this] { return scheduler_.RunUntilIdle(); },
                [this] { return scheduler_.NextDeadlineNs(); });
  }
  void Launch(const std::string& name, int64_t cost_ns) {
    stream_->Launch(
        [this, name, cost_ns] {
          Note(name + " begins");
          work_.Spend(cost_ns);
        },
        [this, name, cost_ns](const WorkTime& time) {
          Note(name + " is done");
          EXPECT_EQ(time.end_ns - time.start_ns, cost_ns);
          EXPECT_EQ(time.ran_ns, cost_ns);
        });
  }
  void Note(const std::string& what) {
    happened_.push_back(std::to_string(clock_.NowNs()) + " " + what);
  }

  VirtualClock clock_;
  SimDriver driver_{clock_, 1};
  SimWork work_;
  Scheduler scheduler_{{.clock = &clock_}};
  std::unique_ptr<SimStream> stream_ = std::make_unique<SimStream>(scheduler_, driver_, work_);
  std::vector<std::string> happened_;
};

TEST_F(SimStreamTest, WorkHoldsTheStreamAsLongAsItTakes) {
  Launch("a", 300);
  Launch("b", 20);
  while (driver_.Step()) continue;
  // As on a thread, the next piece waits for no completion.
  EXPECT_EQ(happened_, (std::vector<std::string>{"0 a begins", "300 b begins", "300 a is done",
                                                 "320 b is done"}));
}

TEST_F(SimStreamTest, WhatIsSpentOffTheStreamsHoldsNone) {
  work_.Spend(1'000'000);
  Launch("a", 5);
  while (driver_.Step()) continue;
  EXPECT_EQ(happened_.back(), "5 a is done");
}

TEST_F(SimStreamTest, ATaskLeavesTheStreamWhileItWaits) {
  const StreamScope scope(*stream_);
  const auto task = [](SimWork& work) -> Task<Status> {
    work.Spend(1000);
    co_await StreamSleep(2);
    work.Spend(500);
    co_return Status{};
  };
  stream_->LaunchTask(scope, task(work_), [this](const WorkTime& time, Status status) {
    EXPECT_TRUE(status.ok());
    EXPECT_EQ(time.ran_ns, 1500);
    Note("the task is done");
  });
  Launch("b", 100);
  while (driver_.Step()) continue;
  ASSERT_EQ(happened_.size(), 3u);
  EXPECT_EQ(happened_[1], "1100 b is done");
  EXPECT_GE(clock_.NowNs(), 2'000'000);
}

TEST_F(SimStreamTest, ItsEndIsTheEndOfWhatWasLaunched) {
  Launch("a", 300);
  Launch("b", 20);
  stream_.reset();
  while (driver_.Step()) continue;
  EXPECT_EQ(happened_, (std::vector<std::string>{"0 a begins"}));
}

}  // namespace
}  // namespace troupe
