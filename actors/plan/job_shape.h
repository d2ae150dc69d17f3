// What every plan of a job begins with: its model, its mesh and its batch, of an effective job.
// Pure.
#pragma once

#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/layer_spec.h"
#include "actors/plan/memory_model.h"
#include "actors/plan/mesh.h"
#include "proto/job.pb.h"
#include "runtime/base/result.h"

namespace troupe {

struct JobShape {
  ModelSpec model{};
  Mesh mesh{};
  BatchArithmetic batch{};
};
// The first error; ReadJobPlan (job_plan.h) has them all.
Result<JobShape> JobShapeOf(const proto::JobSpec& spec);

// Whether its kind trains the model; else it runs the weights of a folder once.
bool Trains(const proto::JobSpec& spec);

// Of train.dtype and train.grad_dtype, float32 where they are left out. Adds every error found.
NumberWidths ReadWidths(const proto::Train& train, std::vector<Error>& errors);
// The first error, for those who were given an effective job.
Result<NumberWidths> WidthsOf(const proto::Train& train);

}  // namespace troupe
