// RankActors: the actors of one rank: spawns them and introduces them to one another. Used by the
// worker's root, which alone knows every actor.
// Thread: the rank's actor thread.
//
//   every rank   executor, stages, data loader, checkpoint actor, shard actors, ring attention
//   actor rank 0       schedule actor, job actor
#pragma once

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "actors/checkpoint_actor.h"
#include "actors/executor_actor.h"
#include "actors/job_actor.h"
#include "actors/plan/trace_window.h"
#include "actors/rank_activity.h"
#include "actors/rank_groups.h"
#include "actors/rank_ring.h"
#include "actors/rank_seams.h"
#include "actors/rank_shards.h"
#include "actors/rank_traffic.h"
#include "actors/schedule_actor.h"
#include "actors/traced_memory.h"
#include "proto/worker.pb.h"
#include "runtime/actor/remote.h"

namespace troupe {

class RankActors {
 public:
  // What the actors are made for and live with. All of it outlives them.
  struct Context {
    const RankSeams& seams;
    const proto::StartRank& start;
    const JobPlan& plan;
    RankRouter& router;
    Stream& stream;
    Stream& disk;  // of what waits for files beside the computation; may be `stream`
    MemoryLedger& ledger;
    std::vector<int> hosts{};  // by rank (HostNumbersOf)
  };
  // Of rank 0.
  struct JobParts {
    double product_flops = 0;  // a second, of all ranks; 0: not known
    std::optional<Replanner> replanner{};
    std::function<void(const proto::FromRank&)> say{};
    std::function<void(JobEnd)> on_end{};
  };

  RankActors(const Context& context, LoadedRank loaded);
  ~RankActors();  // the executor lets go of what it received
  RankActors(const RankActors&) = delete;
  RankActors& operator=(const RankActors&) = delete;

  Status Spawn(std::function<void(const RankActivity&)> on_progress);
  Status SpawnJob(JobParts parts);

  // Rank 0, when all are ready.
  Status Begin();
  // What the router says of other ranks.
  void OnCredit(Rank peer, uint16_t channel);
  void OnPeerDown(Rank peer, const Error& cause);
  // The loss of a peer, with what a pass waits for meanwhile.
  Error LossInWords(Rank peer, const Error& cause) const;

  Status Cancel(bool checkpoint) const { return schedule_.Send(CancelTraining{checkpoint}); }

  RankRouter& router() const { return context_.router; }
  const ExecutorActor::SelfRef& executor() const { return executor_; }
  const ScheduleActor::SelfRef& schedule() const { return schedule_; }
  const RunContent& content() const { return loaded_.content; }
  // What the rank sent in training steps since its start, beside what the plan says.
  proto::CommunicationReport Communication() const;
  // How the rank's memory went through the traced steps.
  TracedMemory& traced_memory() { return traced_memory_; }
  // Of the rank's stages.
  std::vector<const StageParameters*> parameters() const { return ParametersOf(loaded_.stages); }
  // For whoever ends the actors, when nothing runs any more: their memory outlives these.
  StageSet TakeStages() { return std::move(loaded_.stages); }

 private:
  std::vector<SavedStage> SavedStages();
  SpawnedStage SpawnStage(const RankPlace& place, StageId stage);
  SpawnedLoader SpawnLoader(const RankPlace& place);
  // The checkpoint actor, and who stands on other ranks.
  void MeetRanks(ExecutorActor::Peers& peers);

  const Context context_;
  const Rank self_;
  LoadedRank loaded_;
  TraceWindow trace_{};
  RankTraffic traffic_{};
  TracedMemory traced_memory_;
  StateReaders readers_{};
  RankGroups groups_;
  RankShards shards_;
  RankRing ring_;
  RankActivity activity_{};
  std::function<void(const RankActivity&)> on_progress_{};
  ExecutorActor::SelfRef executor_{};
  ScheduleActor::SelfRef schedule_{};
  JobActor::SelfRef job_{};
};

}  // namespace troupe
