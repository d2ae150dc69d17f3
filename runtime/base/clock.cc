#include "runtime/base/clock.h"

#include <ctime>

namespace troupe {
namespace {

int64_t Read(clockid_t id) {
  timespec now{};
  clock_gettime(id, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

class MachineClock : public Clock {
 public:
  int64_t NowNs() const override { return Read(CLOCK_MONOTONIC); }
  int64_t WallUs() const override { return Read(CLOCK_REALTIME) / 1000; }
  int64_t ThreadCpuNs() const override { return Read(CLOCK_THREAD_CPUTIME_ID); }
};

}  // namespace

Clock& SystemClock() {
  static MachineClock clock;
  return clock;
}

}  // namespace troupe
