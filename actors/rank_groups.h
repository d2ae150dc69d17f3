// RankGroups: the groups that one rank is a member of, opened from the job's plan. Today these are
// the ranks that hold copies of the same weights.
// Thread: the rank's actor thread. Outlives the tasks that use a group.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

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
  // The router, the plan and the ledger outlive it.
  RankGroups(RankRouter& router, const JobPlan& plan, MemoryLedger& ledger,
             const Deadlines& deadlines);

  // Posts the slots. Before any member begins an operation.
  Status Open();

  // Of the plan's reduction of this place; null where one rank holds all copies.
  Group* OfReduction(int32_t reduction) const;

  // The reductions that `stage`, one of the rank's, starts. `model_of`: the rank's copies.
  std::map<int32_t, StageReduction> ReductionsOf(
      StageId stage, const std::function<StageModel*(StageId)>& model_of) const;

  // Of the ranks with shards of the stage's weights, one of this rank's; null where it has all.
  Group* OfShards(StageId stage) const;
  // What this rank sent since Open, by axis and operation.
  std::vector<CommunicationVolume> Sent() const;

  void OnPeerDown(Rank peer, const Error& cause) { groups_.OnPeerDown(peer, cause); }
  void OnCredit(Rank peer, uint16_t channel) { groups_.OnCredit(peer, channel); }

 private:
  const JobPlan& plan_;
  const Rank self_;
  const Deadlines deadlines_;
  RouterGroups groups_;
  std::map<int32_t, std::unique_ptr<Group>> of_reductions_{};
};

}  // namespace troupe
