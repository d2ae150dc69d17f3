// What a job's keys say of data-parallel ranks: what they share out (ZeRO), when they add up their
// gradients, and what that asks of schedule and groups. Pure.
#pragma once

#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/parameter_shard.h"
#include "actors/plan/train_schedule.h"
#include "proto/job.pb.h"

namespace troupe {

inline constexpr int kZeroStageMax = 3;
inline constexpr int kZeroPrefetchMax = 1024;  // units: more than a stage has

// Adds every error found to `errors`, by field name.
ZeroSharding ReadZero(const proto::Parallelism& parallelism, std::vector<Error>& errors);

// What the sums of a step need of a schedule and of the groups.
// `keys` are those that the schedule is of.
Status CheckGroups(const proto::Parallelism& keys, const TrainSchedule& train,
                   const BatchArithmetic& batch);

}  // namespace troupe
