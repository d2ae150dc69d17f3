// What a rank's actors are told when they are spawned, and the slots that its peers send to: all
// from the job and its plan. Used by the worker's root.
#pragma once

#include "actors/data_loader_actor.h"
#include "actors/executor_actor.h"
#include "actors/plan/job_plan.h"
#include "actors/rank_groups.h"
#include "actors/schedule_actor.h"
#include "actors/stage_actor.h"
#include "actors/train_program.h"
#include "proto/worker.pb.h"

namespace troupe {

// Whoever waits longer for files, or for the end of a stream's work, is told of.
inline constexpr int kDiskWaitMs = 60'000;

// When a wait of the rank is told of: after `usual_ms`, or earlier, so that it is told well before
// it ends the job (resources.hang_seconds).
int64_t WaitDeadlineMs(const proto::JobSpec& spec, int64_t usual_ms);

ScheduleOptions ScheduleOptionsOf(const proto::JobSpec& spec);
// What the job's kind names: TrainProgram ("pretrain"), EvaluateProgram, SampleProgram.
// `product_flops`: a second, of all ranks; 0: not known.
Result<std::unique_ptr<Program>> ProgramOf(const proto::StartRank& start, const JobPlan& plan,
                                           double product_flops);
TrainOptions TrainOptionsOf(const proto::StartRank& start, const JobPlan& plan);
ExecutorOptions ExecutorOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank);
StageOptions StageOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank,
                            StageId stage);
// The loader makes what any of the rank's stages reads.
DataLoaderOptions DataLoaderOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank);
RankGroups::Deadlines GroupDeadlinesOf(const proto::JobSpec& spec);
// Refuses a file with too few tokens for the job.
Result<DataOrder> DataOrderOf(const proto::JobSpec& spec, const JobPlan& plan,
                              const TokenFile& tokens);

// By rank, a number for its host: that of the first rank there.
std::vector<int> HostNumbersOf(const proto::Peers& peers, int num_ranks);

// Posts what other ranks send to, and learns how much they may be sent: before anyone sends.
Status PostSlots(Transport& transport, const proto::JobSpec& spec, const JobPlan& plan, Rank rank);

}  // namespace troupe
