// The stage models of one rank, built as the plan says and filled with their first weights. Used by
// the worker's root.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "actors/model/measured_costs.h"
#include "actors/model/stage_model.h"
#include "actors/plan/job_plan.h"
#include "proto/worker.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/memory/buffer.h"
#include "runtime/transport/envelope.h"

namespace troupe {

using StageSet = std::map<StageId, std::unique_ptr<StageModel>>;

// train.dtype.
DType DTypeOfJob(const proto::JobSpec& spec);

// Every stage of `rank`, without weights. Plan and ledger outlive the models.
StageSet BuildStages(const proto::JobSpec& spec, const JobPlan& plan, Rank rank,
                     MemoryLedger& ledger);

// Weights and optimizer state from a checkpoint, weights from a Hugging Face folder, or random ones
// by seed, whichever the start names. Returns the step that training goes on from.
Result<int64_t> FillStages(FileSystem& files, const proto::StartRank& start, StageSet& stages);

std::vector<const StageParameters*> ParametersOf(const StageSet& stages);

// What this rank takes for the parts of the job's model (measured_costs.h).
Result<ModelCosts> MeasureCosts(const proto::JobSpec& spec, const Clock& clock);

// Floating-point operations a second of a product of the job's layers (product_rate.h); 0 where the
// job names no sizes.
double MeasureProductFlops(const proto::JobSpec& spec, const Clock& clock);

// What travels between the job's stages.
TensorDescriptor BoundaryTensor(const proto::JobSpec& spec, const JobPlan& plan);

}  // namespace troupe
