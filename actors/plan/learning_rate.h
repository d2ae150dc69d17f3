// The learning rate of a step. Pure.
//   warm-up: lr · step / warmup_steps for step <= warmup_steps; then with
//   t = (step - warmup_steps) / (decay_steps - warmup_steps) in [0, 1]:
//   constant  lr
//   linear    lr + (min_lr - lr) · t
//   cosine    min_lr + (lr - min_lr) · (1 + cos(pi t)) / 2
#pragma once

#include <cstdint>
#include <vector>

#include "proto/job.pb.h"
#include "runtime/base/result.h"

namespace troupe {

// Where the decay ends unless the job says: with the run, or with the warm-up that a run cuts
// short.
int32_t DefaultDecaySteps(const proto::JobSpec& spec);

class LearningRate {
 public:
  // Adds every error found to `errors`, naming its field.
  static LearningRate Read(const proto::JobSpec& spec, std::vector<Error>& errors);
  // The first error, for those who were given an effective job.
  static Result<LearningRate> FromSpec(const proto::JobSpec& spec);

  // `step` counts from 1.
  double At(int64_t step) const;

 private:
  enum class Shape : uint8_t { kConstant, kLinear, kCosine };
  Shape shape_ = Shape::kConstant;
  double lr_ = 0;
  double min_lr_ = 0;
  int64_t warmup_steps_ = 0;
  int64_t decay_steps_ = 0;
};

}  // namespace troupe
