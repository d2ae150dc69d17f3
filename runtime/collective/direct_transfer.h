// DirectTransfer: an operation whose members send each other all that each needs, in one hop
// (operation_plan.h). Blocks to be summed are held until all members' have come, then summed in one
// pass (G3).
//
//   F2. Where a sum overwrites input (in place), that input has been sent to everybody before.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/collective/group_transfer.h"
#include "runtime/collective/operation_plan.h"

namespace troupe {

class DirectTransfer final : public GroupTransfer {
 public:
  // Copies what the member sends to itself.
  DirectTransfer(const Group& group, const GroupOperation& operation, int64_t block_bytes);

  std::optional<OutgoingBlock> Next(int to) const override;

 private:
  int64_t CountFrom(int from, BlockPart part) const override;
  void TakeCopy(int from, std::span<const std::byte> bytes) override;
  void TakeSum(int from, Bulk bulk) override;
  void WasSent(int to, BlockPart part) override;
  bool SummedAll() const override { return summed_ == plan_.summed.count; }

  int64_t BlockCount(int64_t count, int64_t first) const;
  int64_t CopyReady(int to) const;  // elements of copy_to that may be sent
  bool MaySum(int64_t count) const;
  void SumWhatIsHere();

  const OperationPlan plan_;
  int64_t summed_ = 0;               // elements of plan_.summed that are in the output
  std::vector<const void*> inputs_;  // of one sum
};

}  // namespace troupe
