#include "runtime/trace/span.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "runtime/sim/virtual_clock.h"

namespace troupe {
namespace {

TEST(TraceNames, EqualStringsShareAnId) {
  const uint32_t a = InternTraceName("span_test.a");
  EXPECT_EQ(InternTraceName("span_test.a"), a);
  EXPECT_NE(InternTraceName("span_test.b"), a);
  EXPECT_EQ(TraceName(a), "span_test.a");
}

TEST(TraceFlows, IdsAreFreshAndNameTheirRank) {
  std::set<uint32_t> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(NewFlowId(Rank(3)));
  EXPECT_EQ(ids.size(), 1000u);
  EXPECT_FALSE(ids.contains(0));
  for (const uint32_t id : ids) EXPECT_EQ(id >> 24, 3u);
}

TEST(TraceRing, HandsOutEveryRecordOnceAndInOrder) {
  TraceRing ring;
  std::vector<int64_t> values;
  const auto sink = [&](const SpanRecord& record) { values.push_back(record.start_ns); };
  for (int i = 0; i < 10; ++i) ring.Write({.start_ns = i});
  EXPECT_EQ(ring.Drain(sink), 0);
  for (int i = 10; i < 15; ++i) ring.Write({.start_ns = i});
  EXPECT_EQ(ring.Drain(sink), 0);
  ASSERT_EQ(values.size(), 15u);
  for (int i = 0; i < 15; ++i) EXPECT_EQ(values[static_cast<size_t>(i)], i);
}

TEST(TraceRing, OverwritesTheOldestAndCountsThem) {
  TraceRing ring;
  constexpr auto kCapacity = static_cast<int64_t>(TraceRing::kCapacity);
  for (int64_t i = 0; i < kCapacity + 100; ++i) ring.Write({.start_ns = i});
  std::vector<int64_t> values;
  const int64_t lost = ring.Drain([&](const SpanRecord& r) { values.push_back(r.start_ns); });
  EXPECT_EQ(lost + static_cast<int64_t>(values.size()), kCapacity + 100);
  EXPECT_GE(lost, 100);
  EXPECT_LE(lost, 101) << "one more than were overwritten may be given up, none else";
  EXPECT_EQ(values.back(), kCapacity + 99);
}

// A drainer beside a writer that laps it: what comes out is whole and ascending.
TEST(TraceRing, NeverHandsOutATornRecord) {
  TraceRing ring;
  std::atomic<bool> stop{false};
  constexpr int64_t kRecords = 300'000;
  std::thread writer([&] {
    for (int64_t i = 1; i <= kRecords; ++i) {
      ring.Write({.start_ns = i, .end_ns = 2 * i, .cpu_ns = 3 * i});
    }
    stop = true;
  });
  int64_t last = 0;
  int64_t seen = 0;
  int64_t lost = 0;
  const auto look = [&](const SpanRecord& r) {
    ASSERT_EQ(r.end_ns, 2 * r.start_ns);
    ASSERT_EQ(r.cpu_ns, 3 * r.start_ns);
    ASSERT_GT(r.start_ns, last);
    last = r.start_ns;
    ++seen;
  };
  while (!stop) lost += ring.Drain(look);
  writer.join();
  lost += ring.Drain(look);
  EXPECT_EQ(seen + lost, kRecords);
  EXPECT_EQ(last, kRecords);
}

TEST(Span, RecordsTheClockAndWhatWasSet) {
  VirtualClock clock;
  clock.AdvanceMs(5);
  (void)DrainTrace([](const SpanRecord&) {});
  {
    Span span(clock, InternTraceName("span_test.forward"), SpanCategory::kCompute, true);
    span.record.step = 8;
    clock.AdvanceMs(2);
  }
  std::vector<SpanRecord> records;
  const auto result = DrainTrace([&](const SpanRecord& r) { records.push_back(r); });
  EXPECT_EQ(result.records, 1);
  EXPECT_EQ(result.lost, 0);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(TraceName(records[0].name), "span_test.forward");
  EXPECT_EQ(records[0].start_ns, 5'000'000);
  EXPECT_EQ(records[0].end_ns, 7'000'000);
  EXPECT_EQ(records[0].cpu_ns, 2'000'000);
  EXPECT_EQ(records[0].step, 8);
}

TEST(Span, ARingOutlivesItsThread) {
  VirtualClock clock;
  (void)DrainTrace([](const SpanRecord&) {});
  std::thread([&] {
    Span span(clock, InternTraceName("span_test.gone"), SpanCategory::kIo);
  }).join();
  int found = 0;
  (void)DrainTrace([&](const SpanRecord& r) { found += TraceName(r.name) == "span_test.gone"; });
  EXPECT_EQ(found, 1);
}

}  // namespace
}  // namespace troupe
