// RankGroups: the groups that one rank is a member of, opened from the job's plan. Today these are
// the ranks that hold copies of the same weights.
// Thread: the rank's actor thread. Outlives the tasks that use a group.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "actors/plan/job_plan.h"
#include "runtime/collective/router_groups.h"

namespace troupe {

class RankGroups {
 public:
  // The router, the plan and the ledger outlive it. `deadline_ms`: of an operation.
  RankGroups(RankRouter& router, const JobPlan& plan, MemoryLedger& ledger, int64_t deadline_ms);

  // Posts the slots. Before any member begins an operation.
  Status Open();

  // Of the plan's reduction of this place; null where one rank holds all copies.
  Group* OfReduction(int32_t reduction) const;

  void OnPeerDown(Rank peer, const Error& cause) { groups_.OnPeerDown(peer, cause); }
  void OnCredit(Rank peer, uint16_t channel) { groups_.OnCredit(peer, channel); }

 private:
  const JobPlan& plan_;
  const Rank self_;
  const int64_t deadline_ms_;
  RouterGroups groups_;
  std::map<int32_t, std::unique_ptr<Group>> of_reductions_{};
};

}  // namespace troupe
