#include "runtime/memory/memory_course.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/memory/buffer.h"
#include "tests/runtime/actor/manual_clock.h"

namespace troupe {
namespace {

constexpr auto kActivations = static_cast<size_t>(MemoryTag::kActivations);

// At `time_ns`, so many bytes of activations and no others.
MemorySample At(int64_t time_ns, int64_t bytes) {
  MemorySample sample{.time_ns = time_ns, .allocated_bytes = bytes};
  sample.used_bytes[kActivations] = bytes;
  return sample;
}

std::vector<int64_t> Used(const MemoryCourse& course) {
  std::vector<int64_t> used;
  for (const MemorySample& sample : course.Samples()) used.push_back(sample.used());
  return used;
}

TEST(MemoryCourseTest, HasEveryChangeInOrder) {
  MemoryCourse course;
  EXPECT_TRUE(course.Samples().empty());
  for (int i = 0; i < 5; ++i) course.Add(At(i, 10 * (i % 3)));
  EXPECT_EQ(Used(course), (std::vector<int64_t>{0, 10, 20, 0, 10}));
}

TEST(MemoryCourseTest, OfVeryManyChangesKeepsStartEndAndPeakInBoundedRoom) {
  for (const int count : {1'000, 1'023, 1'024, 1'025, 2'047, 5'000, 100'000, 1'000'001}) {
    const int peak_at = count * 2 / 3;
    MemoryCourse course;
    course.Add(At(0, 7));
    for (int i = 1; i < count; ++i) course.Add(At(i, i == peak_at ? 1'000'000 : i % 10));
    course.Add(At(count, 3));
    const auto samples = course.Samples();
    ASSERT_LE(samples.size(), MemoryCourse::kSamplesMax) << count;
    EXPECT_GE(samples.size(), std::min<size_t>(count, MemoryCourse::kSamplesMax / 2 - 1));
    EXPECT_EQ(samples.front().time_ns, 0);
    EXPECT_EQ(samples.front().used(), 7);
    EXPECT_EQ(samples.back().time_ns, count);
    EXPECT_EQ(samples.back().used(), 3);
    EXPECT_TRUE(std::ranges::is_sorted(samples, {}, &MemorySample::time_ns)) << count;
    const auto peak = std::ranges::max_element(samples, {}, &MemorySample::used);
    EXPECT_EQ(peak->used(), 1'000'000) << count;
    EXPECT_EQ(peak->time_ns, peak_at) << count;
  }
}

TEST(MemoryCourseTest, SamplesStandForEquallyManyChanges) {
  MemoryCourse course;
  for (int i = 0; i < 40'000; ++i) course.Add(At(i, i));
  const auto samples = course.Samples();
  for (size_t i = 2; i + 1 < samples.size(); ++i) {
    ASSERT_EQ(samples[i].time_ns - samples[i - 1].time_ns, samples[2].time_ns - samples[1].time_ns);
  }
}

TEST(MemoryLedgerTest, TellsIdleBuffersFromThoseInUse) {
  MemoryLedger ledger;
  const auto idle = [&ledger] { return ledger.Snapshot().idle_bytes[kActivations]; };
  const auto current = [&ledger] { return ledger.Snapshot().current_bytes[kActivations]; };
  Buffer pooled(ledger, MemoryTag::kActivations, 100);
  pooled.SetIdle(true);
  pooled.SetIdle(true);
  EXPECT_EQ(idle(), 100);
  EXPECT_EQ(current(), 100);
  Buffer moved(std::move(pooled));
  EXPECT_EQ(idle(), 100);
  moved.SetIdle(false);
  EXPECT_EQ(idle(), 0);
  moved.SetIdle(true);
  Buffer other(ledger, MemoryTag::kActivations, 10);
  other = std::move(moved);
  EXPECT_EQ(idle(), 100);
  EXPECT_EQ(current(), 100);
  other = Buffer();
  EXPECT_EQ(idle(), 0) << "it went while it was idle";
  EXPECT_EQ(current(), 0);
  Buffer none;
  none.SetIdle(true);
  EXPECT_EQ(idle(), 0);
}

TEST(MemoryLedgerTest, ItsCourseHasAllocatedAndUsedAtEveryChange) {
  ManualClock clock;
  MemoryLedger ledger;
  const Buffer params(ledger, MemoryTag::kParams, 1000);
  EXPECT_TRUE(ledger.EndCourse().Samples().empty()) << "none was begun";
  ledger.BeginCourse(clock);
  std::optional<Buffer> stash(std::in_place, ledger, MemoryTag::kActivations, 50);
  clock.AdvanceMs(1);
  stash->SetIdle(true);
  clock.AdvanceMs(1);
  stash.reset();
  const auto samples = ledger.EndCourse().Samples();
  ASSERT_EQ(samples.size(), 5U) << "start, three changes, end";
  const std::vector<std::pair<int64_t, int64_t>> wanted = {
      {1000, 1000}, {1050, 1050}, {1050, 1000}, {1000, 1000}, {1000, 1000}};
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_EQ(samples[i].allocated_bytes, wanted[i].first) << i;
    EXPECT_EQ(samples[i].used(), wanted[i].second) << i;
  }
  EXPECT_EQ(samples[2].time_ns - samples[0].time_ns, 1'000'000);
  EXPECT_EQ(samples[1].used_bytes[kActivations], 50);
  const Buffer later(ledger, MemoryTag::kGrads, 1);
  EXPECT_TRUE(ledger.EndCourse().Samples().empty()) << "it ended once";
}

TEST(MemoryLedgerTest, ACourseHasTheChangesOfAllThreads) {
  MemoryLedger ledger;
  ledger.BeginCourse(SystemClock());
  constexpr int kThreads = 4;
  constexpr int kBuffers = 50;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&ledger] {
      for (int i = 0; i < kBuffers; ++i) const Buffer buffer(ledger, MemoryTag::kComm, 64);
    });
  }
  for (auto& thread : threads) thread.join();
  const auto samples = ledger.EndCourse().Samples();
  EXPECT_GE(samples.size(), size_t{2 * kThreads * kBuffers} + 1);
  EXPECT_TRUE(std::ranges::is_sorted(samples, {}, &MemorySample::time_ns));
  EXPECT_EQ(samples.back().used(), 0);
}

}  // namespace
}  // namespace troupe
