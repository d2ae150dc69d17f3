// One run by seed: a small job, one fault or two, the same job gone on with where it failed, and
// what must come of both.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/simulation/faults.h"

namespace troupe::testing {

// What became of a run.
struct SimOutcome {
  std::string violation{};  // empty: everything held
  std::vector<std::string> log{};
  std::vector<Faults::Fault> faults{};
  std::string first_reason{};  // of the first job's end
  int jobs_succeeded = 0;
  int jobs_failed = 0;
  int64_t end_ns = 0;
};

SimOutcome RunSeed(uint64_t seed);

}  // namespace troupe::testing
