// Compares a job with the same job on one worker. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace troupe {

// What a run leaves to compare.
struct RunTrace {
  struct Step {
    int64_t step = 0;
    std::optional<double> loss{};  // both absent where the step was skipped
    std::optional<double> grad_norm{};
  };
  std::vector<Step> steps{};
  std::map<int32_t, uint64_t> parameter_digests{};  // by index in the parameter table
};

struct Parity {
  bool bit_equal = false;
  std::string sentence{};  // "200 losses, 200 gradient norms and 75 parameters bit-equal"
};
// A difference names the first step, or the number of parameters, that differ. A run without steps,
// which only went on from its last checkpoint, is compared by its parameters.
Parity Compare(const RunTrace& run, const RunTrace& reference);

}  // namespace troupe
