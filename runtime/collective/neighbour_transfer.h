// NeighbourTransfer: a sum that goes from neighbour to neighbour (neighbour_plan.h). It needs no
// memory but the group's slots and buffers:
//
//   in place (all-reduce)    what comes is added to the own elements where they lie, and is sent on
//                            from there. The whole sum overwrites them when it comes back: it
//                            contains the next member's addition, so that member has read the
//                            block.
//   elsewhere                input stays as it is. A block that goes on is held until there is room
//                            ahead, and gets the own elements added as it goes out.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "runtime/collective/group_transfer.h"
#include "runtime/collective/neighbour_plan.h"

namespace troupe {

class NeighbourTransfer final : public GroupTransfer {
 public:
  NeighbourTransfer(const Group& group, const GroupOperation& operation, int64_t block_bytes);

  std::optional<OutgoingBlock> Next(int to) const override;
  // A chain's: a reduce and a broadcast.
  GroupOperationKind CountsAs(BlockPart part) const override;

 private:
  // How far one of the lists is.
  struct Progress {
    Progress(const std::vector<NeighbourBlock>& all, int size);
    // The next that goes out; null after the last.
    const NeighbourBlock* Outgoing() const;
    void WentOut();
    // The next that comes from that member; there is one.
    size_t Incoming(int from) const;

    const std::vector<NeighbourBlock>& blocks;
    size_t outgoing = 0;
    std::vector<size_t> taken;  // of each member: the blocks before are taken
    std::vector<int> here;      // of each member: blocks that came and are to go on
  };

  int64_t CountFrom(int from, BlockPart part) const override;
  void TakeCopy(int from, std::span<const std::byte> bytes) override;
  void TakeSum(int from, Bulk bulk) override;
  void WasSent(int to, BlockPart part) override;

  std::optional<OutgoingBlock> NextCopy() const;
  std::optional<OutgoingBlock> NextSum() const;
  std::span<const std::byte> InputOf(const NeighbourBlock& block) const;

  const SumAlgorithm algorithm_;
  const bool in_place_;
  const NeighbourPlan plan_;
  Progress sums_;
  Progress copies_;
  int num_whole_ = 0;  // sums that became whole here and are to go out as copies
};

}  // namespace troupe
