// How the times of `troupe schedule` scatter: from the words of its flags to the simulator's noise.
// Pure.
#pragma once

#include <cstdint>
#include <string>

#include "actors/schedule/action_costs.h"
#include "actors/schedule/schedule.h"
#include "runtime/base/result.h"

namespace troupe {

// As the command line has them.
struct NoiseOptions {
  double jitter = 0;
  std::string hiccup{};     // RATE,SIZE
  std::string straggler{};  // RANK,FACTOR
  uint64_t seed = 0;
};

// kInvalidSpec, with the flag and what it takes.
Result<Noise> NoiseOf(const NoiseOptions& options);
Status CheckStraggler(const Noise& noise, const NoiseOptions& options, const Schedule& schedule);

// How much longer than its mean a step may be, with plenty to spare.
double LongestBy(const Noise& noise);

}  // namespace troupe
