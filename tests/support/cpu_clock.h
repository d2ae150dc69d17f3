// The time that this thread computes: what tests measure by it, no other process makes slower.
#pragma once

#include "runtime/base/clock.h"

namespace troupe::testing {

class CpuClock : public Clock {
 public:
  int64_t NowNs() const override { return SystemClock().ThreadCpuNs(); }
  int64_t WallUs() const override { return SystemClock().WallUs(); }
  int64_t ThreadCpuNs() const override { return SystemClock().ThreadCpuNs(); }
};

}  // namespace troupe::testing
