// What the members of a group send each other.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/base/error.h"
#include "runtime/base/ids.h"

namespace troupe {

enum class BlockPart : uint8_t {
  kNone = 0,  // says only which operation its sender has begun
  kSum = 1,   // input, to be summed by the receiver
  kCopy = 2,  // for the receiver's output
};

// Where a member of the same host reads a block's bytes instead of beside the message
// (lent_memory.h).
struct LentPlace {
  uint64_t buffer = 0;  // the lender's number for it
  int64_t buffer_bytes = 0;
  int64_t offset = 0;
  int64_t num_bytes = 0;    // 0: nothing is lent
  int32_t descriptor = -1;  // of the buffer's memory, in the lender's process
  uint32_t mark = 0;        // in the lender's page
};

// At most a slot of an operation's elements, beside the message or lent. Of one sender in one
// operation the blocks of a part come in ascending order, and all blocks of an operation before the
// next one's.
struct GroupBlock {
  static constexpr std::string_view kMessageName = "troupe.GroupBlock";
  uint64_t sequence = 0;  // of the group's operation, from 1
  uint32_t group = 0;
  uint8_t kind = 0;  // GroupOperationKind
  uint8_t dtype = 0;
  BlockPart part = BlockPart::kNone;
  uint8_t reserved = 0;
  int32_t peer = 0;  // the operation's root or distance
  uint32_t reserved2 = 0;
  int64_t total = 0;    // elements of the operation
  int64_t count = 0;    // of the part, from this sender to this receiver
  int64_t expects = 0;  // of all parts, from this receiver to this sender
  int64_t first = 0;    // of this block, within the part
  LentPlace lent{};
};
static_assert(sizeof(GroupBlock) == 96, "a wire format");

// The sender has read all that the receiver lent it in an operation.
struct BlocksRead {
  static constexpr std::string_view kMessageName = "troupe.BlocksRead";
  uint64_t sequence = 0;
  uint32_t group = 0;
  int32_t rank = 0;  // the sender's
};
static_assert(sizeof(BlocksRead) == 16, "a wire format");

// The sender lends what lies in its shared buffers, if the receiver finds `number` in memory that
// process `process_id` of its host has open as `descriptor`.
struct LendingOffer {
  static constexpr std::string_view kMessageName = "troupe.LendingOffer";
  uint64_t number = 0;
  int32_t rank = 0;  // the sender's
  int32_t process_id = 0;
  int32_t descriptor = -1;
  uint32_t reserved = 0;
};
static_assert(sizeof(LendingOffer) == 24, "a wire format");
struct LendingAnswer {
  static constexpr std::string_view kMessageName = "troupe.LendingAnswer";
  uint64_t number = 0;  // the offer's
  int32_t rank = 0;     // the sender's
  uint32_t reads = 0;   // 1: it found the number
};
static_assert(sizeof(LendingAnswer) == 16, "a wire format");

// The sender's group is broken.
struct GroupFault {
  static constexpr std::string_view kMessageName = "troupe.GroupFault";
  static constexpr size_t kTextBytes = 496;
  uint32_t group = 0;
  uint8_t code = 0;  // ErrorCode
  uint8_t reserved[3] = {};
  uint64_t text_bytes = 0;
  char text[kTextBytes] = {};
};
static_assert(sizeof(GroupFault) == 512, "a wire format");

// Within the process.
struct MemberLost {
  Rank rank{};
  Error cause{};
};

}  // namespace troupe
