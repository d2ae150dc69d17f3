// GroupTransfer: one operation at one member, as blocks out and blocks in. Knows no transport: the
// group asks for the next block to each member and brings what has come. Which blocks, and what
// becomes of those that come, say direct_transfer.h and neighbour_transfer.h.
//
//     Next(to)/Sent(to)      what goes to a member, in order; sums go out as soon as they are taken
//     Take(from, block)      copies land in the output at once; blocks to be summed are held until
//                            they are
//
//   F1. A block is checked against what is expected next from its sender before a byte is used.
//
// Thread: the scheduler's, but for the constructor. The operation's memory outlives the transfer.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/collective/group.h"
#include "runtime/collective/group_messages.h"
#include "runtime/transport/transport.h"

namespace troupe {

class GroupTransfer {
 public:
  // Blocks are of `block_bytes` at most. `group` outlives the transfer.
  GroupTransfer(const Group& group, const GroupOperation& operation, int64_t block_bytes);
  GroupTransfer(const GroupTransfer&) = delete;
  GroupTransfer& operator=(const GroupTransfer&) = delete;
  virtual ~GroupTransfer() = default;

  // Of the group's operations, from 1. Before anything goes out or comes in.
  void set_sequence(uint64_t sequence) { sequence_ = sequence; }
  uint64_t sequence() const { return sequence_; }
  const OperationSignature& signature() const { return signature_; }

  struct OutgoingBlock {
    GroupBlock message;
    std::span<const std::byte> bytes;  // of input or output, or what came and is held
    bool stays = true;                 // unchanged until every member has read it
    const void* added = nullptr;       // as many elements of the input, for the sum of both
  };
  // What may go to a member now. Sent is then called with it.
  virtual std::optional<OutgoingBlock> Next(int to) const = 0;
  // The block's elements as they go out.
  void Write(const OutgoingBlock& block, std::byte* to) const;
  void Sent(int to, const OutgoingBlock& block);
  bool SentAllTo(int member) const;
  // As what the elements of a part count.
  virtual GroupOperationKind CountsAs(BlockPart) const { return signature_.kind; }

  // Whether nothing that came or will come of the member is needed any more.
  bool UsedAllFrom(int member) const;

  // An error names the member and what it sent. May make new blocks ready for everybody.
  Status Take(int from, const GroupBlock& block, Bulk bulk);

  bool done() const;
  // Of those who keep the operation from ending the one that is least far, or -1. And how far they
  // all are, that one first: "nothing from rank 3; 2000 of 8000 bytes from rank 1".
  int FirstMissing() const;
  std::string Missing() const;

 protected:
  // Between this member and another one, in elements.
  struct Member {
    int64_t sum_to = 0;  // of the whole operation
    int64_t copy_to = 0;
    int64_t sum_from = 0;
    int64_t copy_from = 0;
    int64_t sum_sent = 0;  // so far
    int64_t copy_sent = 0;
    int64_t sum_taken = 0;
    int64_t copy_taken = 0;
    bool greeted = false;     // at least one block went out
    bool heard = false;       // at least one came in
    std::deque<Bulk> held{};  // to be summed, in order
  };

  // The block of that part that is to come next; there is one.
  virtual int64_t CountFrom(int from, BlockPart part) const = 0;
  virtual void TakeCopy(int from, std::span<const std::byte> bytes) = 0;
  virtual void TakeSum(int from, Bulk bulk) = 0;
  virtual void WasSent(int to, BlockPart part) = 0;
  // Whether everything is in the output that is summed here and was taken.
  virtual bool SummedAll() const { return true; }

  GroupBlock MessageTo(int to, BlockPart part) const;
  // Says to a member that hears nothing yet what this one has begun, if it was not said.
  std::optional<OutgoingBlock> Greeting(int to) const;
  Member& at(int member) { return members_[static_cast<size_t>(member)]; }
  const Member& at(int member) const { return members_[static_cast<size_t>(member)]; }
  int size() const { return group_.size(); }
  int index() const { return group_.index(); }
  int64_t block_elements() const { return block_elements_; }
  const GroupOperation& operation() const { return operation_; }
  std::span<const std::byte> BytesAt(const void* data, int64_t first, int64_t count) const;
  std::byte* OutputAt(int64_t first) const;
  // out = the sum of `inputs` (ElementType::sum).
  void Sum(std::byte* out, std::span<const void* const> inputs, int64_t count) const;

 private:
  int64_t ExpectedFrom(int member) const;  // elements of all parts
  bool ReceivedAllFrom(int member) const;
  bool WaitsFor(int member) const;
  std::string MissingOf(int member) const;
  Status Expected(int from, const GroupBlock& block, size_t num_bytes) const;

  const Group& group_;
  const GroupOperation operation_;
  const OperationSignature signature_;
  const ElementType* type_;  // null for a barrier
  const int64_t element_bytes_;
  const int64_t block_elements_;
  const bool waits_for_all_;  // ends only when every member was heard (G2)
  uint64_t sequence_ = 0;
  std::vector<Member> members_;
};

}  // namespace troupe
