// A clock that advances only when a test says so.
#pragma once

#include <cstdint>

#include "runtime/base/clock.h"

namespace troupe {

class ManualClock : public Clock {
 public:
  int64_t NowNs() const override { return now_ns_; }
  int64_t WallUs() const override { return now_ns_ / 1000; }
  int64_t ThreadCpuNs() const override { return cpu_ns_; }

  void AdvanceMs(int64_t ms) { now_ns_ += ms * 1'000'000; }
  void SetNs(int64_t now_ns) { now_ns_ = now_ns; }
  void SetCpuNs(int64_t cpu_ns) { cpu_ns_ = cpu_ns; }

 private:
  int64_t now_ns_ = 1'000'000'000;
  int64_t cpu_ns_ = 0;
};

}  // namespace troupe
