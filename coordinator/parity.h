// Compares a job with the same job on one worker. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "proto/job.pb.h"
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

// By how much a run may differ from one worker, as a share of the worker's own numbers.
struct ParityTolerance {
  double loss = 0;
  double grad_norm = 0;

  bool bit_equal() const { return loss == 0 && grad_norm == 0; }
};
// Nothing where every layout of the job computes the same bits. Ranks that share sequences add up
// attention in another order than one worker: losses to 1e-5 and gradient norms to 1e-4, in
// bfloat16 a hundred times as much.
ParityTolerance ToleranceOf(const proto::JobSpec& spec);

struct Parity {
  bool agrees = false;
  // "200 losses, 200 gradient norms and 75 parameters bit-equal", "200 losses within 1e-05 and 200
  // gradient norms within 0.0001 (largest differences 2.1e-07 and 3.4e-06)"
  std::string sentence{};
};
// A difference names the first step, or the number of parameters, that differ. A run without steps,
// which only went on from its last checkpoint, is compared by its parameters; within a tolerance
// there is then nothing to compare, and it does not agree.
Parity Compare(const RunTrace& run, const RunTrace& reference,
               const ParityTolerance& tolerance = {});

}  // namespace troupe
