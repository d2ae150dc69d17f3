// GroupTransfer: one operation at one member, as blocks out and blocks in. Knows no transport: the
// group asks for the next block to each member and brings what has come.
//
//     Next(to)/Sent(to)      a part's blocks in order; sums go out as soon as they are taken
//     Take(from, block)      copies land in the output at once; blocks to be summed are held until
//                            all members' have come, then summed in one pass (G3)
//
//   F1. A block is checked against what is expected next from its sender before a byte is used.
//   F2. Where a sum overwrites input (in place), that input has been sent to everybody before.
//
// Thread: the scheduler's. The operation's memory outlives the transfer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/collective/group.h"
#include "runtime/collective/group_messages.h"
#include "runtime/collective/operation_plan.h"
#include "runtime/transport/transport.h"

namespace troupe {

class GroupTransfer {
 public:
  // `plan` is the operation's. Blocks are of `block_bytes` at most. `group` outlives the transfer.
  GroupTransfer(const Group& group, const GroupOperation& operation, OperationPlan plan,
                uint64_t sequence, int64_t block_bytes);

  struct OutgoingBlock {
    GroupBlock message;
    std::span<const std::byte> bytes;  // of input or output
    bool stays = true;                 // unchanged until the operation has ended
  };
  // What may go to a member now. Sent is then called with it.
  std::optional<OutgoingBlock> Next(int to) const;
  void Sent(int to, const OutgoingBlock& block);
  bool SentAllTo(int member) const;

  // Whether nothing that came or will come of the member is needed any more.
  bool UsedAllFrom(int member) const;

  // An error names the member and what it sent. May make new blocks ready for everybody.
  Status Take(int from, const GroupBlock& block, Bulk bulk);

  bool done() const;
  const OperationSignature& signature() const { return signature_; }
  uint64_t sequence() const { return sequence_; }
  // Of those who keep the operation from ending the one that is least far, or -1. And how far they
  // all are, that one first: "nothing from rank 3; 2000 of 8000 bytes from rank 1".
  int FirstMissing() const;
  std::string Missing() const;

 private:
  struct Member {
    int64_t sum_sent = 0;  // elements
    int64_t copy_sent = 0;
    bool greeted = false;  // at least one block went out
    bool heard = false;    // at least one came in
    int64_t sum_taken = 0;
    int64_t copy_taken = 0;
    std::vector<Bulk> held{};  // to be summed, in order
  };

  GroupBlock MessageTo(int to, BlockPart part, int64_t count, int64_t first) const;
  int64_t BlockCount(int64_t count, int64_t first) const;
  int64_t CopyReady(int to) const;         // elements of copy_to that may be sent
  int64_t ExpectedFrom(int member) const;  // elements of all parts
  bool ReceivedAllFrom(int member) const;
  std::string MissingOf(int member) const;
  Status Expected(int from, const GroupBlock& block, size_t num_bytes) const;
  bool MaySum(int64_t count) const;
  void SumWhatIsHere();

  const Group& group_;
  const GroupOperation operation_;
  const OperationSignature signature_;
  const uint64_t sequence_;
  const ElementType* type_;  // null for a barrier
  const int64_t element_bytes_;
  const int64_t block_elements_;
  const OperationPlan plan_;
  int64_t summed_ = 0;  // elements of plan_.summed that are in the output
  std::vector<Member> members_;
  std::vector<const void*> inputs_;  // of one sum
};

}  // namespace troupe
