// The groups of one rank, over the messages of its RankRouter: whatever transport carries those is
// the backend (in process, UCX, simulated).
//
//     RouterGroups groups(router, {.elements = kElementTypes, .actor_index = 7, .ledger =
//     &ledger}); ASSIGN_OR_RETURN(std::unique_ptr<Group> dp, groups.Open({…}, /*channel=*/16));
//     // The router's on_peer_down and on_credit call OnPeerDown and OnCredit.
//
// Every group has a data channel of its own between each two members, so no group waits for what
// another holds back. Blocks are cut to the channel's slots and flow by its credits. Sent blocks
// are copied first, so an operation's memory is its task's again the moment the operation has
// ended, whatever the transport still has to do. Members of one host read each other's shared
// buffers in place instead (lent_memory.h); an operation ends when they have.
//
// Thread: the scheduler's, but for the groups' operations. Router, transport and ledger outlive
// this, this its groups.
//   D1. All members have opened a group before one of them begins an operation.
//   D2. Comm memory of a group of n: (n - 1) slots_per_peer slot_bytes, posted by Open, and buffers
//       of slot_bytes for the blocks that the transport has not finished with, taken when first
//       needed: as many again, where it finishes a block before it returns the credit. What is lent
//       needs none.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "runtime/actor/remote.h"
#include "runtime/collective/group.h"
#include "runtime/collective/group_messages.h"
#include "runtime/collective/lent_memory.h"
#include "runtime/memory/buffer.h"

namespace troupe {

class RouterGroup;

struct RouterGroupsOptions {
  std::span<const ElementType> elements{};  // outlive the groups
  uint32_t actor_index = 0;  // where the router knows these groups, the same at every rank
  int slots_per_peer = 4;
  int64_t slot_bytes = 256 << 10;
  MemoryLedger* ledger = nullptr;
  // Whose shared buffers other members of this host read in place; null: none are.
  const MemoryLedger* lends = nullptr;
  int64_t min_lent_bytes = 16 << 10;  // smaller blocks are quicker copied
};

class RouterGroups {
 public:
  RouterGroups(RankRouter& router, RouterGroupsOptions options);
  ~RouterGroups();
  RouterGroups(const RouterGroups&) = delete;
  RouterGroups& operator=(const RouterGroups&) = delete;

  // Posts the group's slots. `channel` is a data channel that nobody else ever uses between any two
  // of its members.
  Result<std::unique_ptr<Group>> Open(GroupSpec spec, uint16_t channel);

  void OnPeerDown(Rank peer, const Error& cause);
  void OnCredit(Rank peer, uint16_t channel);

  // From the actor of these groups.
  void Take(WithBulk<GroupBlock> block);
  void Take(const GroupFault& fault);
  void Take(const BlocksRead& read);
  void Take(const LendingOffer& offer);
  void Take(const LendingAnswer& answer);
  void Take(const MemberLost& lost);

  // What came for no group, from no member or is of no known operation: dropped.
  int64_t num_dropped() const { return num_dropped_; }
  // Of the elements that were sent, those that members read in place.
  int64_t lent_bytes() const { return lent_.lent_bytes(); }

 private:
  friend class RouterGroup;
  RouterGroup* Find(uint32_t group) const;
  bool IsMember(Rank rank) const;  // of one of the groups, and another rank

  RankRouter& router_;
  const RouterGroupsOptions options_;
  std::map<uint32_t, RouterGroup*> groups_{};  // by id
  std::map<Rank, Error> lost_{};
  LentMemory lent_;
  ActorRef<WithBulk<GroupBlock>, GroupFault, BlocksRead, LendingOffer, LendingAnswer, MemberLost>
      actor_{};
  int64_t num_dropped_ = 0;
};

}  // namespace troupe
