// The ranks of a context-parallel group in one process: a stream of each, a ring and groups between
// them. Everything runs on the calling thread, in an order that is the same each time.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "actors/model/stage_model.h"
#include "tests/actors/model/loop_rings.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe::testing {

class ContextWorld {
 public:
  explicit ContextWorld(int num_ranks) : world_(num_ranks), rings_(NewLoop(num_ranks)) {
    std::vector<Rank> ranks;
    for (int rank = 0; rank < num_ranks; ++rank) ranks.emplace_back(rank);
    for (int rank = 0; rank < num_ranks; ++rank) {
      Member& member = members_.emplace_back();
      for (int lane = 0; num_ranks > 1 && lane < kNumKvLanes; ++lane) {
        member.groups.push_back(world_.Open({.id = GroupId(static_cast<uint32_t>(lane + 1)),
                                             .name = "cp",
                                             .ranks = ranks,
                                             .self = Rank(rank)},
                                            static_cast<uint16_t>(16 + lane)));
      }
      member.scope = std::make_unique<StreamScope>(world_.stream(rank));
    }
  }

  int size() const { return static_cast<int>(members_.size()); }
  LoopRing& ring(int rank) { return *rings_[static_cast<size_t>(rank)]; }
  AttentionWork& work(int rank) { return members_[static_cast<size_t>(rank)].work; }
  ContextPeers PeersOf(int rank) {
    Member& member = members_[static_cast<size_t>(rank)];
    ContextPeers peers{.ring = &ring(rank), .work = &member.work};
    for (size_t lane = 0; lane < member.groups.size(); ++lane) {
      peers.groups[lane] = member.groups[lane].get();
    }
    return peers;
  }

  // The same tasks of every rank, several of a rank beside each other, all to their ends.
  using NewTask = std::function<Task<Status>(int rank)>;
  void Run(const NewTask& new_task) { RunTogether({&new_task, 1}); }
  void RunTogether(std::span<const NewTask> new_tasks) {
    int open = 0;
    for (int rank = 0; rank < size(); ++rank) {
      for (const NewTask& new_task : new_tasks) {
        ++open;
        world_.stream(rank).LaunchTask(*members_[static_cast<size_t>(rank)].scope, new_task(rank),
                                       [&open](const WorkTime&, const Status& status) {
                                         EXPECT_TRUE(status.ok()) << status.error().message;
                                         --open;
                                       });
      }
    }
    ASSERT_TRUE(world_.Until([&open] { return open == 0; }));
    for (const auto& ring : rings_) EXPECT_TRUE(ring->all_let_go());
  }

 private:
  struct Member {
    std::vector<std::unique_ptr<Group>> groups{};
    std::unique_ptr<StreamScope> scope{};
    AttentionWork work{};
  };
  RouterWorld<SimWorldNetwork> world_;
  std::vector<std::unique_ptr<LoopRing>> rings_;
  std::deque<Member> members_{};  // after the world: their groups end first
};

}  // namespace troupe::testing
