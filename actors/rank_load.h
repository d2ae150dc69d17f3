// What a rank loads before it is ready: its stages with weights and optimizer state, and the tokens
// that it reads; each checked against what the checkpoint remembers. Used by the worker's root on
// the compute stream, for all of it waits for disks.
#pragma once

#include <optional>

#include "actors/plan/job_plan.h"
#include "actors/run_content.h"
#include "actors/stage_set.h"
#include "actors/token_source.h"
#include "actors/training_progress.h"
#include "runtime/base/host_memory.h"

namespace troupe {

struct LoadedRank {
  StageSet stages{};
  TrainingProgress progress{};  // that training goes on from
  RunContent content{};
  std::optional<TokenSource> tokens{};  // where a stage of this rank reads them
};

// Refuses with kInfeasible what does not fit `memory` (where that is known), with kCorrupt a
// damaged checkpoint, with kInvalidSpec data or initial weights that are not the checkpoint's. Plan
// and ledger outlive the stages.
Result<LoadedRank> LoadRank(FileSystem& files, const proto::StartRank& start, const JobPlan& plan,
                            const std::optional<HostMemory>& memory, MemoryLedger& ledger);

// The same, with the memory that this host says it has.
Result<LoadedRank> LoadRankHere(FileSystem& files, const proto::StartRank& start,
                                const JobPlan& plan, MemoryLedger& ledger);

// What the plan says a rank will hold here, all tags together, without its process.
int64_t PredictedBytes(const JobPlan& plan, Rank rank);

// "out of memory: …" with what is wanted, what is there and what to lower. `wanted_bytes` 0: not
// known.
std::string OutOfMemory(int64_t wanted_bytes, int64_t predicted_bytes,
                        const std::optional<HostMemory>& memory);

// Where memory runs out anywhere in this process, it says so and ends with 1. Once, before threads.
void SayWhereMemoryRunsOut();

}  // namespace troupe
