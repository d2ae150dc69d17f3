// RouterGroup: a Group over the messages of a RankRouter. Made by RouterGroups::Open.
//
// An open operation is a wait of its task (stream.h) and a GroupTransfer: a direct one, or one from
// neighbour to neighbour as the group's SumAlgorithm says. Blocks go out while there are credits;
// what comes for an operation that has not begun here stays in its slot until it does.
//
//     begun --every block sent and received--> ended, OK
//       |----difference, lost member, deadline, fault of a member, task destroyed----> broken
//
//   E1. To one member the blocks of an operation go before those of the next. So the first of the
//       open operations never waits for a slot that a later one holds.
//   E2. A group that breaks says so to every member once; whoever hears it says nothing further.
//   E3. An operation ends well when what it lent was read (lent_memory.h). It sends on or gives out
//       nothing that a lender had withdrawn: then a fault of that member is on its way.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/actor/remote.h"
#include "runtime/actor/stream.h"
#include "runtime/actor/wait_record.h"
#include "runtime/collective/group.h"
#include "runtime/collective/group_transfer.h"
#include "runtime/collective/staging_pool.h"

namespace troupe {

class RouterGroups;

class RouterGroup final : public Group {
 public:
  RouterGroup(RouterGroups& groups, GroupSpec spec, uint16_t channel);
  ~RouterGroup() override;

  Task<Status> Run(GroupOperation operation) override;
  void Break(Error error) override { Break(std::move(error), /*tell=*/true); }

  uint16_t channel() const { return channel_; }
  std::optional<int> IndexOf(Rank rank) const;

  void Take(int from, WithBulk<GroupBlock> block);
  // The member has read what was lent to it in that operation.
  void TakeRead(int from, uint64_t sequence);
  // Sends what may be sent, and ends what has ended.
  void Advance();
  // Ends every operation with the error. `tell`: the other members too (E2).
  void Break(Error error, bool tell);

 private:
  class Wait;
  // Between one operation and one member: what it was lent, and what it lends.
  struct Loan {
    bool lent = false;
    bool was_read = false;
    std::optional<uint32_t> borrowed{};  // the lender's mark
    bool said_read = false;
  };
  struct Open : TimerNode {
    RouterGroup* group = nullptr;
    Wait* wait = nullptr;
    GroupPurpose purpose{};
    std::unique_ptr<GroupTransfer> transfer{};
    std::vector<Loan> loans{};  // by member
    std::string text{};         // "group dp: all-reduce 17 of 1024 float32", for the record
    int missing = -1;
    WaitSubject subject{};
    WaitHandle record{};

    bool done() const { return transfer->done() && FirstReader() < 0; }
    // The member that has not read what it was lent, or -1.
    int FirstReader() const;
    int FirstMissing() const;
  };
  struct Held {
    GroupBlock message;
    Bulk bulk{};
  };

  void Begin(Wait& wait, GroupPurpose purpose, std::unique_ptr<GroupTransfer> transfer);
  void Abandon(Wait& wait);
  void BeginRecord(Open& open);
  // The member that keeps an open operation from ending, or one that began before it (G5).
  int MissingFor(const Open& open) const;
  void Tell(const Error& error);
  bool SendTo(int member);  // whether anything went
  // False: what was lent for the block was withdrawn as it was read (E3), and nothing went.
  Result<bool> Send(int member, const GroupTransfer::OutgoingBlock& block, Open& open);
  Result<Bulk> BytesOf(int from, const GroupBlock& message, Bulk beside, Open& open);
  Status SayRead(Open& open);
  bool IsWithdrawn(const Open& open) const;
  Status TakeNow(int from, const GroupBlock& message, Bulk bulk, Open& open);
  void TakeLate(int from, const GroupBlock& message);
  void End(size_t position, Status status);
  void DeadlinePassed(Open& open);
  Open* Find(uint64_t sequence) const;

  RouterGroups& groups_;
  const uint16_t channel_;
  const std::string waiter_;               // "rank 3"
  std::vector<std::string> member_names_;  // "rank 3", by index
  std::vector<RemoteRef<WithBulk<GroupBlock>, GroupFault, BlocksRead>> members_;  // by index
  std::vector<std::pair<Rank, int>> by_rank_{};  // each member's index, by ascending rank
  const std::optional<uint32_t> mark_;           // for what this group lends
  std::shared_ptr<StagingPool> staging_;
  uint64_t num_begun_ = 0;
  std::vector<std::unique_ptr<Open>> open_;                    // by sequence
  std::vector<std::deque<Held>> early_;                        // by member
  std::deque<std::pair<uint64_t, OperationSignature>> ended_;  // the last few, by sequence
  std::optional<Error> broken_;
};

}  // namespace troupe
