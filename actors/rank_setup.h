// What a rank's actors are told when they are spawned, and the slots that its peers send to: all
// from the job and its plan. Used by the worker's root.
#pragma once

#include "actors/data_loader_actor.h"
#include "actors/executor_actor.h"
#include "actors/plan/job_plan.h"
#include "actors/rank_seams.h"
#include "actors/schedule_actor.h"
#include "actors/stage_actor.h"
#include "proto/worker.pb.h"

namespace troupe {

ScheduleOptions ScheduleOptionsOf(const proto::StartRank& start, const JobPlan& plan);
ExecutorOptions ExecutorOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank);
StageOptions StageOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank,
                            StageId stage);
// The gradient reductions that a stage of the place starts. `model_of`: the rank's copies.
std::map<int32_t, StageReduction> ReductionsOf(const RankPlace& place, StageId stage,
                                               const std::function<StageModel*(StageId)>& model_of);

// Refuses a file with too few tokens for the job.
Result<DataOrder> DataOrderOf(const proto::JobSpec& spec, const JobPlan& plan,
                              const TokenFile& tokens);

// Posts what other ranks send to, and learns how much they may be sent: before anyone sends.
Status PostSlots(Transport& transport, const proto::JobSpec& spec, const JobPlan& plan, Rank rank);

}  // namespace troupe
