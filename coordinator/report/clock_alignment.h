// Puts the steady clocks of a job's ranks on one axis, from the (steady, wall) pair that each rank
// says hello with, and from messages: none arrives before it was sent. Pure values; one thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <utility>
#include <vector>

namespace troupe {

class ClockAlignment {
 public:
  // Steady clocks whose starts agree this closely are one clock, read at different times: ranks of
  // one machine then stay exact to each other, whatever the wall clock did in between.
  static constexpr int64_t kSameClockNs = 5'000'000;

  void Add(int32_t rank, int64_t steady_ns, int64_t wall_us) {
    const int64_t wall_ns = std::clamp(wall_us, -kWallUsMax, kWallUsMax) * 1000;
    const int64_t start_ns = wall_ns - Within(steady_ns);
    if (clocks_.empty()) origin_ns_ = wall_ns;
    const auto same = std::ranges::find_if(clocks_, [start_ns](const SteadyClock& clock) {
      return std::abs(start_ns - clock.said_ns) <= kSameClockNs;
    });
    clock_of_[rank] = static_cast<size_t>(same - clocks_.begin());
    if (same == clocks_.end()) clocks_.push_back({.said_ns = start_ns, .start_ns = start_ns});
  }

  // A message left at `sent_ns` of one rank's steady clock and began to arrive at `arrived_ns` of
  // another's. Where that is backwards on the common axis, the receiver's clock moves forward, and
  // with it those that are then backwards to it.
  void AddMessage(int32_t from, int64_t sent_ns, int32_t to, int64_t arrived_ns) {
    const auto sender = clock_of_.find(from);
    const auto receiver = clock_of_.find(to);
    if (sender == clock_of_.end() || receiver == clock_of_.end()) return;
    if (sender->second == receiver->second) return;
    const int64_t least_ns = Within(sent_ns) - Within(arrived_ns);
    const auto [lead, fresh] =
        least_leads_.try_emplace({sender->second, receiver->second}, least_ns);
    if (!fresh && lead->second >= least_ns) return;
    lead->second = least_ns;
    Settle();
  }

  // Nanoseconds since the first Add, for a reading of the rank's steady clock. A rank that never
  // said hello keeps its own.
  int64_t CommonNs(int32_t rank, int64_t steady_ns) const {
    const auto clock = clock_of_.find(rank);
    if (clock == clock_of_.end()) return steady_ns;
    return Within(steady_ns) + clocks_[clock->second].start_ns - origin_ns_;
  }

 private:
  // Ranks are not trusted: beyond these, sums of times could overflow.
  static constexpr int64_t kSteadyNsMax = int64_t{1} << 60;
  static constexpr int64_t kWallUsMax = int64_t{1} << 51;
  static constexpr int64_t kCorrectionNsMax = 600'000'000'000;
  static int64_t Within(int64_t steady_ns) {
    return std::clamp(steady_ns, -kSteadyNsMax, kSteadyNsMax);
  }

  struct SteadyClock {
    int64_t said_ns = 0;   // wall time of its zero, by the first rank's hello
    int64_t start_ns = 0;  // the same, as messages have corrected it
  };

  // Raises starts until every lead is kept; clocks that contradict one another stay as they are
  // after one round for each.
  void Settle() {
    for (size_t round = 0; round < clocks_.size(); ++round) {
      bool moved = false;
      for (const auto& [pair, least_ns] : least_leads_) {
        const int64_t least_start_ns = clocks_[pair.first].start_ns + least_ns;
        SteadyClock& receiver = clocks_[pair.second];
        // Beyond minutes it is no error of a clock.
        if (receiver.start_ns >= least_start_ns ||
            least_start_ns - receiver.said_ns > kCorrectionNsMax) {
          continue;
        }
        receiver.start_ns = least_start_ns;
        moved = true;
      }
      if (!moved) return;
    }
  }

  std::map<int32_t, size_t> clock_of_{};  // rank → index in clocks_
  std::vector<SteadyClock> clocks_{};
  // (sender's clock, receiver's) → by how much the receiver's zero lies later at least.
  std::map<std::pair<size_t, size_t>, int64_t> least_leads_{};
  int64_t origin_ns_ = 0;  // wall time of the common axis' zero
};

}  // namespace troupe
