// RankGroups: the groups that one rank is a member of, opened from the job's plan: the ranks that
// hold copies of the same weights, and where such copies are in shards that several of them repeat,
// those that share one copy, and those that have the same shard; where queries meet other ranks'
// keys by operations of a group (cp), those that share sequences, once for each lane.
// Thread: the rank's actor thread. Outlives the tasks that use a group.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "actors/model/kv_ring.h"
#include "actors/plan/communication_volume.h"
#include "actors/plan/job_plan.h"
#include "actors/stage_actor.h"
#include "runtime/collective/router_groups.h"

namespace troupe {

class RankGroups {
 public:
  // Of an operation: told of, and ended. The job's end by a hang comes between the two.
  struct Deadlines {
    int64_t tell_ms = 0;
    int64_t end_ms = 0;
  };
  // The router, the plan and the ledger outlive it. `hosts`: of every rank a number for the host
  // that it is on, by rank (HostNumbersOf).
  RankGroups(RankRouter& router, const JobPlan& plan, MemoryLedger& ledger,
             const Deadlines& deadlines, std::vector<int> hosts);

  // Posts the slots. Before any member begins an operation.
  Status Open();

  // Of the plan's reduction of this place; null where one rank holds all copies.
  Group* OfReduction(int32_t reduction) const;

  // The reductions that `stage`, one of the rank's, starts. `model_of`: the rank's copies.
  std::map<int32_t, StageReduction> ReductionsOf(
      StageId stage, const std::function<StageModel*(StageId)>& model_of) const;

  // Of the ranks that hold `stage`, one of this rank's: none where nobody else does.
  SiblingGroups SiblingsOf(StageId stage) const;
  // Of the ranks that share this one's sequences, for passes of a lane; null where they are none,
  // or exchange blocks in a ring.
  Group* OfLane(int lane) const { return lanes_[static_cast<size_t>(lane)].group.get(); }
  // What these send counts from here, or not any more.
  void AtStep(bool begins);

  // What this rank sent since Open, by axis and operation; along cp in training steps alone.
  std::vector<CommunicationVolume> Sent() const;

  void OnPeerDown(Rank peer, const Error& cause) { groups_.OnPeerDown(peer, cause); }
  void OnCredit(Rank peer, uint16_t channel) { groups_.OnCredit(peer, channel); }

 private:
  // Of a reduction: all its members; of these the owners of one copy of the weights, and those with
  // one shard.
  enum class Members : uint8_t { kAll, kOwners, kReplicas };
  using Traffic = std::array<GroupTraffic, kNumGroupOperationKinds>;
  struct LaneGroup {
    std::unique_ptr<Group> group{};
    Traffic at_begin{};  // of the step
    Traffic counted{};
  };

  Status OpenLanes();
  Result<std::unique_ptr<Group>> OpenNumber(int number, std::string name, std::vector<Rank> ranks,
                                            SumAlgorithm sums);
  Status OpenOne(int32_t reduction, Members members, std::vector<Rank> ranks);
  Group* Find(int32_t reduction, Members members) const;

  const JobPlan& plan_;
  const Rank self_;
  const Deadlines deadlines_;
  const std::vector<int> hosts_;
  RouterGroups groups_;
  std::map<std::pair<int32_t, Members>, std::unique_ptr<Group>> opened_{};
  std::array<LaneGroup, kNumKvLanes> lanes_{};
};

}  // namespace troupe
