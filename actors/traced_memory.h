// TracedMemory: how a rank's memory went through the training steps that the trace covers, kept
// until it is told. For the run's picture.
// Thread: the rank's actor thread; the ledger counts on any.
//   S1. At most kStepsKept steps wait to be told; of more, the earliest go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>

#include "runtime/base/clock.h"
#include "runtime/memory/buffer.h"
#include "runtime/memory/memory_course.h"

namespace troupe {

class TracedMemory {
 public:
  static constexpr size_t kStepsKept = 16;

  struct Step {
    int64_t step = 0;
    MemoryCourse course{};
  };

  TracedMemory(MemoryLedger& ledger, const Clock& clock) : ledger_(ledger), clock_(clock) {}

  void Begin() { ledger_.BeginCourse(clock_); }
  void End(int64_t step) {
    steps_.push_back({step, ledger_.EndCourse()});
    if (steps_.size() > kStepsKept) steps_.pop_front();
  }
  // Those that have ended since the last call.
  std::deque<Step> Take() { return std::exchange(steps_, {}); }

 private:
  MemoryLedger& ledger_;
  const Clock& clock_;
  std::deque<Step> steps_{};
};

}  // namespace troupe
