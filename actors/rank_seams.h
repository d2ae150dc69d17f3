// What a rank is built from besides its orders: its seams to the world, and what it computes with.
// troupe-rank hands over the real ones (rank_main.cc), tests and the simulator theirs.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "actors/messages.h"
#include "actors/plan/job_plan.h"
#include "actors/rank_groups.h"
#include "actors/rank_load.h"
#include "actors/rank_ring.h"
#include "actors/rank_setup.h"
#include "actors/rank_shards.h"
#include "proto/worker.pb.h"
#include "runtime/actor/scheduler.h"
#include "runtime/actor/stream.h"
#include "runtime/base/file_system.h"
#include "runtime/memory/buffer.h"
#include "runtime/transport/transport.h"

namespace troupe {

// What a rank's transport is made for.
struct TransportNeeds {
  Rank self{};
  int world_size = 1;
  int silence_ms = 0;    // of a peer, until it is lost
  MemoryLedger& ledger;  // counts the slots; outlives the transport
  std::function<void(const std::string&)> warn{};
};

// Where a stage or a loader is spawned. All that is referred to outlives it.
struct RankPlace {
  Scheduler& scheduler;
  const JobPlan& plan;
  Stream& stream;
  const RankGroups& groups;
  RankShards& shards;
  RankRing& ring;
  Rank rank{};

  // What the model of a stage joins; of a rank that shares its sequences with nobody all null.
  ContextPeers Sharing() const {
    return {.ring = ring.ring(),
            .groups = {groups.OfLane(0), groups.OfLane(1)},
            .work = plan.batch.context.shared() ? &ring.work() : nullptr};
  }
};

using SpawnedStage = ActorRef<MeetExecutor, RunAction, ReduceGradient, CollectVote, ApplyUpdate>;
using SpawnedLoader = ActorRef<MeetExecutor, FetchMicrobatches>;

// Thread: all are called on the rank's actor thread, but `load`, which the stream runs.
struct RankSeams {
  Scheduler& scheduler;
  FileSystem& files;
  std::function<Result<std::unique_ptr<Transport>>(const TransportNeeds&)> new_transport{};
  std::function<Result<std::unique_ptr<Stream>>()> new_stream{};
  // Of work that waits for files; without it that runs between the computations.
  std::function<Result<std::unique_ptr<Stream>>()> new_disk_stream{};
  // Says what the device is, and how fast where the job hangs on it.
  std::function<Status(const proto::JobSpec&, proto::Hello&)> measure{};
  // To the host agent, in order; telemetry is left out where nobody reads.
  std::function<void(const proto::FromRank&)> say{};
  std::function<void(const proto::FromRank&)> say_telemetry{};
  std::function<void()> leave{};  // the job is over for every rank

  // ---- what a rank computes with; these are a training job's ------------------------------------
  std::function<Result<JobPlan>(const proto::JobSpec&, std::span<const proto::Parallelism>)> plan =
      MakeJobPlan;
  std::function<Result<LoadedRank>(FileSystem&, const proto::StartRank&, const JobPlan&,
                                   MemoryLedger&)>
      load = LoadRankHere;
  // Rank 0's.
  std::function<Result<std::unique_ptr<Program>>(const proto::StartRank&, const JobPlan&,
                                                 double product_flops)>
      new_program = ProgramOf;
  // Without them a stage computes with its model, and microbatches come from the job's data.
  std::function<SpawnedStage(const RankPlace&, StageId)> spawn_stage{};
  std::function<SpawnedLoader(const RankPlace&)> spawn_loader{};
  bool keeps_checkpoints = true;  // false where there are no weights
  // Of each channel, besides the usual ones: as many as it has slots, where a transport hands an
  // output over instead of copying it.
  int more_output_buffers = 0;
};

}  // namespace troupe
