// One run by seed: a small job, one fault, the same job gone on with where it failed, and what must
// come of both.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/simulation/sim_cluster.h"

namespace troupe::testing {

enum class SimFault : uint8_t {
  kNone,
  kKillRank,
  kKillRankInWork,  // in the middle of what it writes
  kStopRank,        // SIGSTOP, for a while
  kKillAgent,
  kKillCoordinator,
  kCut,  // one way between two hosts, for a while
  kSlowLinks,
  kStillDisk,  // answers nothing for a while
  kFullDisk,
};
inline constexpr int kSimFaults = 10;
std::string_view NameOf(SimFault fault);

// What became of a run.
struct SimOutcome {
  std::string violation{};  // empty: everything held
  std::vector<std::string> log{};
  SimFault fault = SimFault::kNone;
  bool struck = false;  // the fault met something that could feel it
  int jobs_succeeded = 0;
  int jobs_failed = 0;
  int64_t end_ns = 0;
};

SimOutcome RunSeed(uint64_t seed);

}  // namespace troupe::testing
