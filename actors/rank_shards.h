// RankShards: a rank's rows of weights in shards (ZeRO-3), opened from the job's plan: an actor for
// each row of each of its stages, and what they send through. Empty where the plan gathers nothing.
// Thread: the rank's actor thread. Outlives the stages that gather from it.
//
//   D1. All owners have opened their rows before one of them gathers.
//   D2. Comm memory: kShardSlots slots for each other owner.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "actors/model/row_source.h"
#include "actors/plan/communication_volume.h"
#include "actors/plan/job_plan.h"
#include "actors/rank_groups.h"
#include "actors/rank_traffic.h"
#include "actors/shard_actor.h"
#include "actors/shard_channels.h"

namespace troupe {

// The rows of one stage, as all its owners name and cut them.
struct SharedRows {
  struct Row {
    std::string name{};                  // for sentences: "model.layers.3"
    std::vector<int64_t> owner_bytes{};  // each owner's run, in their order; none: it is whole
  };
  StageId stage{};
  std::vector<Row> rows{};
};

// The owners and rows that `rank` is one of; no stages where it has all weights whole. Of a row
// that persists there is no actor: nobody gathers it.
struct RankShardsOptions {
  std::vector<Rank> owners{};        // of one copy of the weights, in the order of their runs
  std::vector<SharedRows> stages{};  // of the rank, in the plan's order
  int slots = kShardSlots;
  int64_t block_bytes = kShardBlockBytes;  // of a slot at most; less where every run is smaller

  int64_t SlotBytes() const;
};
RankShardsOptions ShardRowsOfRank(const JobPlan& plan, Rank rank);

class RankShards {
 public:
  // The router and the traffic outlive it.
  RankShards(RankRouter& router, RankShardsOptions options, const RankGroups::Deadlines& deadlines,
             const RankTraffic* traffic);
  ~RankShards();  // what is gathered does not end any more
  RankShards(const RankShards&) = delete;
  RankShards& operator=(const RankShards&) = delete;

  // Posts the slots and spawns the actors. Before any owner gathers. `trace`: the steps whose
  // gathers leave spans.
  Status Open(const TraceWindow& trace = {});

  // Null where the stage's weights are whole.
  RowSource* OfStage(StageId stage);
  // What this rank sent for training steps since Open: the runs that others gathered.
  std::vector<CommunicationVolume> Sent() const;

  void OnPeerDown(Rank peer, const Error& cause);
  void OnCredit(Rank peer) { channels_.OnCredit(peer); }

 private:
  ShardActor::SelfRef Spawn(const SharedRows& stage, int32_t row, uint32_t index,
                            const TraceWindow& trace);

  RankRouter& router_;
  const RankShardsOptions options_;
  const RankGroups::Deadlines deadlines_;
  const RankTraffic* const traffic_;
  ShardChannels channels_;
  std::vector<ShardActor::SelfRef> actors_{};  // by index, from kFirstShardIndex
  std::map<StageId, std::unique_ptr<RowSource>> stages_{};
};

}  // namespace troupe
