// The network between the hosts of a simulation, for what is no transport: the agents' streams to
// the coordinator and what travels beside them. Keeps the order of each direction, delays by seed,
// holds what meets a cut until it is healed.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "runtime/base/random.h"
#include "runtime/sim/sim_driver.h"

namespace troupe::testing {

using HostIndex = int;  // 0: the coordinator's; the agents' follow

class SimLinks {
 public:
  SimLinks(SimDriver& driver, const VirtualClock& clock, uint64_t seed)
      : driver_(driver), clock_(clock), key_(RandomKey(seed, "test.links")) {}

  // `arrive` is called once, in its turn.
  void Send(HostIndex from, HostIndex to, std::function<void()> arrive) {
    Direction& direction = directions_[{from, to}];
    if (direction.cut) return direction.held.push_back(std::move(arrive));
    const auto delay_ns =
        static_cast<int64_t>((kMinNs + UniformAt(key_, draws_++) * kSpreadNs) * direction.slower);
    direction.last_ns = std::max(direction.last_ns, clock_.NowNs() + delay_ns);
    driver_.At(direction.last_ns, std::move(arrive));
  }
  void Cut(HostIndex from, HostIndex to) { directions_[{from, to}].cut = true; }
  void Heal(HostIndex from, HostIndex to) {
    Direction& direction = directions_[{from, to}];
    direction.cut = false;
    for (auto& arrive : std::exchange(direction.held, {})) Send(from, to, std::move(arrive));
  }
  void Slow(HostIndex from, HostIndex to, double times) { directions_[{from, to}].slower = times; }
  bool IsCut(HostIndex from, HostIndex to) const {
    const auto found = directions_.find({from, to});
    return found != directions_.end() && found->second.cut;
  }

 private:
  static constexpr double kMinNs = 50'000;
  static constexpr double kSpreadNs = 500'000;

  struct Direction {
    bool cut = false;
    double slower = 1;
    int64_t last_ns = 0;
    std::vector<std::function<void()>> held{};
  };
  SimDriver& driver_;
  const VirtualClock& clock_;
  const uint64_t key_;
  uint64_t draws_ = 0;
  std::map<std::pair<HostIndex, HostIndex>, Direction> directions_{};
};

}  // namespace troupe::testing
