// Puts the steady clocks of a job's ranks on one axis, from the (steady, wall) pair that each rank
// says hello with. Pure values; one thread.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>

namespace troupe {

class ClockAlignment {
 public:
  // Steady clocks whose starts agree this closely are one clock, read at different times: ranks of
  // one machine then stay exact to each other, whatever the wall clock did in between.
  static constexpr int64_t kSameClockNs = 5'000'000;

  void Add(int32_t rank, int64_t steady_ns, int64_t wall_us) {
    int64_t start_ns = wall_us * 1000 - steady_ns;
    if (starts_ns_.empty()) origin_ns_ = start_ns + steady_ns;
    for (const auto& [other, other_start_ns] : starts_ns_) {
      if (std::abs(start_ns - other_start_ns) <= kSameClockNs) {
        start_ns = other_start_ns;
        break;
      }
    }
    starts_ns_[rank] = start_ns;
  }

  // Nanoseconds since the first Add, for a reading of the rank's steady clock. A rank that never
  // said hello keeps its own.
  int64_t CommonNs(int32_t rank, int64_t steady_ns) const {
    const auto start = starts_ns_.find(rank);
    return start == starts_ns_.end() ? steady_ns : steady_ns + start->second - origin_ns_;
  }

 private:
  std::map<int32_t, int64_t> starts_ns_{};  // wall time of each steady clock's zero
  int64_t origin_ns_ = 0;                   // wall time of the common axis' zero
};

}  // namespace troupe
