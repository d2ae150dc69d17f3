// AwakeClock: a steady clock that stands still while its reader does. Two looks that are further
// apart than kMaxStepNs are kMaxStepNs apart: a process that was suspended (SIGSTOP, a frozen
// container, a machine that sleeps) finds no deadline passed of which it saw nothing.
//
// Thread: one reader, which looks at least every kMaxStepNs while it waits for anything.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/base/clock.h"

namespace troupe {

class AwakeClock : public Clock {
 public:
  static constexpr int64_t kMaxStepNs = 1'000'000'000;

  // `machine` outlives it.
  explicit AwakeClock(const Clock& machine) : machine_(machine), looked_ns_(machine.NowNs()) {}

  int64_t NowNs() const override {
    const int64_t now_ns = machine_.NowNs();
    awake_ns_ += std::min(now_ns - looked_ns_, kMaxStepNs);
    looked_ns_ = now_ns;
    return awake_ns_;
  }
  int64_t WallUs() const override { return machine_.WallUs(); }
  int64_t ThreadCpuNs() const override { return machine_.ThreadCpuNs(); }

 private:
  const Clock& machine_;
  mutable int64_t looked_ns_;
  mutable int64_t awake_ns_ = 0;
};

}  // namespace troupe
