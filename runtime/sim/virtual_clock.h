// VirtualClock: time that only moves when its owner says so. All clocks of a simulation are this
// one, so a run is a function of its seed.
//
// Thread: one.
#pragma once

#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"

namespace troupe {

class VirtualClock : public Clock {
 public:
  int64_t NowNs() const override { return now_ns_; }
  // Simulated jobs start at 2020-01-01 00:00:00 UTC.
  int64_t WallUs() const override { return 1'577'836'800'000'000 + now_ns_ / 1000; }
  // Arithmetic costs what the simulation says it costs, and that is all wall time.
  int64_t ThreadCpuNs() const override { return now_ns_; }

  void AdvanceTo(int64_t now_ns) {
    CHECK(now_ns >= now_ns_, "virtual time would go back from {} to {} ns", now_ns_, now_ns);
    now_ns_ = now_ns;
  }
  void AdvanceMs(int64_t delay_ms) { now_ns_ += delay_ms * 1'000'000; }

 private:
  int64_t now_ns_ = 0;
};

}  // namespace troupe
