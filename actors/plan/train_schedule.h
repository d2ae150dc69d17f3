// From the `parallelism` keys of a job to the schedule of a training step and how the executors
// follow it. Pure; the coordinator and every rank call it and get the same lists.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "actors/schedule/execution_policy.h"
#include "actors/schedule/schedule.h"
#include "proto/job.pb.h"

namespace troupe {

struct TrainSchedule {
  Schedule schedule{};
  ExecutionPolicy policy{};
  // Every stage runs each kind in ascending microbatch order: sums have the bits of one worker's.
  bool ascending = true;
};

// Ranks times microbatches of a step: every rank holds the whole schedule.
inline constexpr int64_t kForwardsMax = int64_t{1} << 20;

// Adds every error found to `errors`, kInvalidSpec by field name; a schedule where there was none.
// 0 ranks or microbatches: not known; what rests on them is not judged, and there is no schedule.
std::optional<TrainSchedule> ReadTrainSchedule(const proto::Parallelism& spec, int num_ranks,
                                               int num_microbatches, std::vector<Error>& errors);

// Stages of a direction as the keys alone tell, where there is no schedule: 0 where they do not.
int StagesByKeys(const proto::Parallelism& spec, int num_ranks);

// Reads schedule, virtual_stages, schedule_actions, executor, activation_slack, activation_limit,
// weight_parts, pairs and backward_output; of dp and grad_reduce, whether `strict` is the executor
// that is not given. The first error.
Result<TrainSchedule> TrainScheduleOf(const proto::Parallelism& spec, int num_ranks,
                                      int num_microbatches);

}  // namespace troupe
