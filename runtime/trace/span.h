// Spans: what happened when, for the trace file. Always on: a span is one or two clock reads and
// one record, a cache line, in a ring that belongs to its thread.
//
// Thread: a ring is written by one thread and drained by any (usually the rank's own).
//   P1. Writing never blocks, allocates or fails; the oldest records are overwritten and counted.
//   P2. Drain hands out every record once, in the order of writing, and never a torn one.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/clock.h"
#include "runtime/base/ids.h"

namespace troupe {

// Names become numbers once; equal strings get equal ids. Any thread; lives for the process.
// Intern takes a lock: keep the id.
uint32_t InternTraceName(std::string_view name);
std::string TraceName(uint32_t id);

// A process-wide fresh id that joins a sending span with the receiving one, never 0. Ids of
// different ranks differ in their upper byte.
uint32_t NewFlowId(Rank rank);

enum class SpanCategory : uint8_t { kHandler, kCompute, kSend, kReceive, kWait, kStep, kIo };
inline constexpr int kNumSpanCategories = 7;
std::string_view SpanCategoryName(SpanCategory category);

struct SpanRecord {
  uint32_t name = 0;
  SpanCategory category = SpanCategory::kHandler;
  int16_t stage = -1;
  int32_t rank = 0;
  int32_t microbatch = -1;
  uint32_t track = 0;     // interned name of the line in the picture: an actor, "compute"
  uint32_t flow_in = 0;   // this span received what another sent
  uint32_t flow_out = 0;  // this span sent what another will receive
  int32_t step = -1;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  int64_t cpu_ns = 0;  // 0: not measured
};

class TraceRing {
 public:
  static constexpr uint64_t kCapacity = 8192;

  void Write(const SpanRecord& record) {
    std::array<uint64_t, kWords> words;
    std::memcpy(words.data(), &record, sizeof(record));
    const uint64_t index = written_.load(std::memory_order_relaxed);
    auto& slot = slots_[index % kCapacity].words;
    // Release, so that a reader that sees a new word also sees how far `written_` had come.
    for (size_t i = 0; i < kWords; ++i) slot[i].store(words[i], std::memory_order_release);
    written_.store(index + 1, std::memory_order_release);
  }

  // One drainer at a time. Returns how many records were lost since the last drain.
  int64_t Drain(const std::function<void(const SpanRecord&)>& sink);

 private:
  static constexpr size_t kWords = sizeof(SpanRecord) / sizeof(uint64_t);
  struct alignas(64) Slot {
    std::array<std::atomic<uint64_t>, kWords> words{};
  };
  static_assert(sizeof(Slot) == 64, "one cache line");

  std::atomic<uint64_t> written_{0};
  uint64_t drained_ = 0;
  std::array<Slot, kCapacity> slots_{};
};

// The calling thread's ring; it outlives the thread until drained.
TraceRing& ThreadTraceRing();

// Drains the rings of all threads of the process, each in its order. One caller at a time.
struct DrainResult {
  int64_t records = 0;
  int64_t lost = 0;
};
DrainResult DrainTrace(const std::function<void(const SpanRecord&)>& sink);

// RAII span on the calling thread. With measure_cpu it reads the thread's CPU clock too, a system
// call of most of a microsecond: for compute, not for messages.
class Span {
 public:
  Span(Clock& clock, uint32_t name, SpanCategory category, bool measure_cpu = false)
      : clock_(clock), measure_cpu_(measure_cpu) {
    record.name = name;
    record.category = category;
    record.start_ns = clock.NowNs();
    if (measure_cpu) cpu_start_ns_ = clock.ThreadCpuNs();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;
  ~Span() {
    if (measure_cpu_) record.cpu_ns = clock_.ThreadCpuNs() - cpu_start_ns_;
    record.end_ns = clock_.NowNs();
    ThreadTraceRing().Write(record);
  }

  SpanRecord record;  // set stage, microbatch, step, track and flows before it ends

 private:
  Clock& clock_;
  const bool measure_cpu_;
  int64_t cpu_start_ns_ = 0;
};

}  // namespace troupe
