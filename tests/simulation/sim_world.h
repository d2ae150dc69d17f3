// What everything of one simulated cluster shares: the clock, the events in time, the disks, the
// network between the hosts, and the log of what happened. A run is a function of its seed.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/sim/sim_driver.h"
#include "runtime/sim/sim_network.h"
#include "tests/simulation/invariants.h"
#include "tests/simulation/sim_files.h"
#include "tests/simulation/sim_links.h"
#include "tests/support/memory_file_system.h"

namespace troupe::testing {

// The ranks of one start of a job: they have a network of their own.
struct JobEpoch {
  uint64_t job = 0;
  uint64_t epoch = 0;
  auto operator<=>(const JobEpoch&) const = default;
};

struct SimWorld {
  SimWorld(uint64_t seed_, int num_hosts)
      : seed(seed_), driver(clock, seed_), links(driver, clock, seed_) {
    for (int host = 0; host < num_hosts; ++host) {
      disks.push_back(std::make_unique<SimDisk>(shared, clock, work));
    }
  }

  // Uniform in [0, 1): the next of the named sequence.
  double Draw(std::string_view name) {
    return UniformAt(RandomKey(seed, name), draws[std::string(name)]++);
  }
  int64_t DrawNs(std::string_view name, int64_t min_ns, int64_t max_ns) {
    return min_ns + static_cast<int64_t>(Draw(name) * static_cast<double>(max_ns - min_ns));
  }
  int64_t now_ns() const { return clock.NowNs(); }

  template <typename... Args>
  void Log(fmt::format_string<Args...> format, Args&&... args) {
    log.push_back(fmt::format("{:12.6f} ms  {}", static_cast<double>(clock.NowNs()) * 1e-6,
                              fmt::format(format, std::forward<Args>(args)...)));
  }

  const uint64_t seed;
  VirtualClock clock{};
  SimDriver driver;
  SimWork work{};
  MemoryFileSystem shared{};
  std::vector<std::unique_ptr<SimDisk>> disks{};  // by host
  SimLinks links;
  std::map<JobEpoch, std::unique_ptr<SimNetwork>> networks{};
  // Which message with bulk between two ranks is lost; empty: none.
  std::function<bool(Rank from, Rank to, const Envelope& envelope)> loses{};
  std::map<std::string, uint64_t> draws{};
  Invariants invariants{};
  std::vector<std::string> log{};
};

}  // namespace troupe::testing
