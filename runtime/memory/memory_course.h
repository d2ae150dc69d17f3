// MemoryCourse: how a ledger's counts went during a stretch of time, change by change, in bounded
// room. A value; one thread at a time.
//   C1. The first sample is the start, the last one the end; times ascend.
//   C2. Between them every change is a sample, and where there would be more than kSamplesMax, each
//       stands for as many changes in a row: the one with most bytes in use. No peak is lost.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "runtime/base/memory_tag.h"

namespace troupe {

struct MemorySample {
  int64_t time_ns = 0;                               // of the clock that the ledger was given
  int64_t allocated_bytes = 0;                       // of all tags, idle ones too
  std::array<int64_t, kNumMemoryTags> used_bytes{};  // allocated and not idle, by tag

  int64_t used() const { return std::accumulate(used_bytes.begin(), used_bytes.end(), int64_t{0}); }
};

class MemoryCourse {
 public:
  static constexpr size_t kSamplesMax = 1024;

  void Add(const MemorySample& sample);
  // Those above; empty where nothing was added.
  std::vector<MemorySample> Samples() const;

 private:
  // Two and two become one; the start stands alone.
  void Halve();

  std::vector<MemorySample> samples_{};
  MemorySample latest_{};
  int64_t stride_ = 1;     // changes that a sample stands for
  int64_t in_newest_ = 1;  // of them, those that the newest sample has
};

}  // namespace troupe
