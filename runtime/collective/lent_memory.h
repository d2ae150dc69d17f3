// LentMemory: what members of one host read in place. A member whose input or output lies in a
// shared buffer (Buffer::Shared) sends a place instead of bytes; the reader maps the buffer once
// and reads there. Nobody ever writes in another's memory.
//
//     lender                                   reader
//       |---- LendingOffer: page, number --------> maps the page, compares the number
//       |<--- LendingAnswer: yes or no ----------|        (another host: no)
//       |---- GroupBlock with a LentPlace -------> maps the buffer, reads
//       |<--- BlocksRead -------------------------|
//
// The page, one of each rank, holds a number that no other page has and a mark for each group. A
// group that breaks sets its mark before it gives memory back to tasks: a reader that sees no mark
// after it has read, read what was lent.
//
// Thread: the scheduler's. Router and ledgers outlive it.
//   B1. What a reader keeps mapped is bounded: kMaxMapped buffers, the longest unused goes first. A
//       buffer that its owner has freed takes no memory there (Buffer::Shared).
//   B2. A place that is not in a buffer of the size it says is an error, and is not touched.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "runtime/actor/remote.h"
#include "runtime/collective/group_messages.h"
#include "runtime/memory/buffer.h"
#include "runtime/memory/shared_region.h"

namespace troupe {

class LentMemory {
 public:
  static constexpr size_t kMaxMapped = 1024;

  // Lends what is in shared buffers of `lends`, from `min_bytes` on; null: nothing. The other
  // ranks' LentMemory takes its messages at `actor_index`. Its page counts in `ledger`.
  LentMemory(RankRouter& router, uint32_t actor_index, const MemoryLedger* lends, int64_t min_bytes,
             MemoryLedger& ledger);

  // For a group. Nothing: it lends nothing.
  std::optional<uint32_t> NewMark();
  // Where `reader` finds the bytes, if it can read them in place. The first call for a reader asks
  // it.
  std::optional<LentPlace> Lend(Rank reader, std::span<const std::byte> bytes, uint32_t mark);
  int64_t lent_bytes() const { return lent_bytes_; }  // so far
  // What was lent under the mark may be something else from now on.
  void Withdraw(uint32_t mark);

  struct Borrowed {
    std::span<std::byte> bytes{};  // only read
    std::shared_ptr<const SharedRegion> memory{};
  };
  Result<Borrowed> Borrow(Rank lender, const LentPlace& place);
  // Called after reading: whether that may have been something else than what was lent.
  bool IsWithdrawn(Rank lender, uint32_t mark) const;

  void Take(const LendingOffer& offer);
  void Take(const LendingAnswer& answer);
  // Its memory is not needed any more.
  void Forget(Rank lost);
  size_t num_mapped() const { return mapped_.size(); }

 private:
  enum class Reading : uint8_t { kUnasked, kAsked, kYes, kNo };
  struct Peer {
    Reading reads = Reading::kUnasked;  // this rank's memory
    SharedRegion page{};                // the peer's, where this rank reads its memory
    int process_id = 0;
  };
  struct Mapped {
    std::shared_ptr<const SharedRegion> memory{};
    int64_t last_use = 0;
  };

  RemoteRef<LendingOffer, LendingAnswer> DoorOf(Rank rank) const;
  Reading Ask(Rank reader);
  bool MakePage();

  RankRouter& router_;
  const uint32_t actor_index_;
  const MemoryLedger* const lends_;
  const int64_t min_bytes_;
  MemoryLedger& ledger_;
  SharedRegion page_{};
  uint64_t number_ = 0;
  uint32_t num_marks_ = 0;
  std::map<Rank, Peer> peers_{};
  std::map<std::pair<Rank, uint64_t>, Mapped> mapped_{};  // by lender and buffer
  int64_t num_borrowed_ = 0;
  int64_t lent_bytes_ = 0;
};

}  // namespace troupe
