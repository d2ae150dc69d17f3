// How far a training run is: what its checkpoints remember of it beside weights and moments. Plain
// data.
#pragma once

#include <cstdint>

namespace troupe {

struct TrainingProgress {
  int64_t step = 0;           // steps done; each has passed one global batch of samples
  int64_t skipped_steps = 0;  // of them: no label counted, and nothing was updated
  int64_t updates = 0;        // that the optimizer's state has seen, those of an earlier run too
  int64_t tokens = 0;         // labels that counted, of all steps
  bool operator==(const TrainingProgress&) const = default;
};

}  // namespace troupe
