// CollectiveActor: the door of a rank's groups. Takes what other members send and hands it to the
// group that it is for.
//
//   takes  WithBulk<GroupBlock>, GroupFault, BlocksRead   of any member
//          LendingOffer, LendingAnswer                    of a member of this host
//          MemberLost   of this rank's router, behind what the lost one sent
//   sends  nothing: groups send for themselves
//
// No states of its own. Its mailbox holds what the channels' credits let come, what is said back,
// and a fault of each member of each group.
#pragma once

#include "runtime/actor/actor.h"
#include "runtime/actor/wire.h"
#include "runtime/collective/group_messages.h"
#include "runtime/collective/router_groups.h"

namespace troupe {

class CollectiveActor : public Actor<CollectiveActor, WithBulk<GroupBlock>, GroupFault, BlocksRead,
                                     LendingOffer, LendingAnswer, MemberLost> {
 public:
  explicit CollectiveActor(RouterGroups& groups) : groups_(groups) {}

  Status On(WithBulk<GroupBlock> block) {
    groups_.Take(std::move(block));
    return {};
  }
  Status On(GroupFault fault) {
    groups_.Take(fault);
    return {};
  }
  Status On(BlocksRead read) {
    groups_.Take(read);
    return {};
  }
  Status On(LendingOffer offer) {
    groups_.Take(offer);
    return {};
  }
  Status On(LendingAnswer answer) {
    groups_.Take(answer);
    return {};
  }
  Status On(const MemberLost& lost) {
    groups_.Take(lost);
    return {};
  }

 private:
  RouterGroups& groups_;
};

}  // namespace troupe
