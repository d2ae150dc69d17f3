#include "runtime/collective/router_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/collective/direct_transfer.h"
#include "runtime/collective/neighbour_transfer.h"
#include "runtime/collective/router_groups.h"

namespace troupe {
namespace {

// Operations whose signatures are kept, to name what a late block differs from.
constexpr size_t kEndedKept = 64;

OperationSignature SaidBy(const GroupBlock& block) {
  return {.kind = static_cast<GroupOperationKind>(block.kind),
          .dtype = block.dtype,
          .peer = block.peer,
          .total = block.total};
}

}  // namespace

// What a task awaits: lives in its frame.
class RouterGroup::Wait final : public StreamWait {
 public:
  Wait(RouterGroup& group, GroupPurpose purpose, std::unique_ptr<GroupTransfer> transfer)
      : group_(group), purpose_(purpose), transfer_(std::move(transfer)) {}
  ~Wait() {
    if (open_) group_.Abandon(*this);
  }

  bool await_ready() const { return false; }
  Status await_resume() { return std::move(status_); }

  void Ended(Status status) {
    open_ = false;
    status_ = std::move(status);
    Resume();
  }

 private:
  void Begin() override {
    open_ = true;
    group_.Begin(*this, purpose_, std::move(transfer_));
  }

  RouterGroup& group_;
  const GroupPurpose purpose_;
  std::unique_ptr<GroupTransfer> transfer_;
  bool open_ = false;
  Status status_{};
};

RouterGroup::RouterGroup(RouterGroups& groups, GroupSpec spec, uint16_t channel)
    : Group(std::move(spec), groups.options_.elements),
      groups_(groups),
      channel_(channel),
      waiter_(fmt::format("rank {}", this->spec().self)),
      mark_(groups.lent_.NewMark()),
      staging_(std::make_shared<StagingPool>(*groups.options_.ledger, groups.options_.slot_bytes)),
      early_(this->spec().ranks.size()) {
  CHECK(this->spec().sums != SumAlgorithm::kRing || groups_.options_.slots_per_peer >= 2,
        "group {}: a ring takes two slots of each peer", this->spec().name);
  for (const Rank rank : this->spec().ranks) {
    member_names_.push_back(fmt::format("rank {}", rank));
    members_.push_back(groups_.router_.Remote<WithBulk<GroupBlock>, GroupFault, BlocksRead>(
        rank, groups_.options_.actor_index));
  }
  for (int member = 0; member < size(); ++member) {
    by_rank_.emplace_back(this->spec().ranks[static_cast<size_t>(member)], member);
  }
  std::ranges::sort(by_rank_);
  groups_.groups_.emplace(this->spec().id.value, this);
}

RouterGroup::~RouterGroup() {
  CHECK(open_.empty(), "group {}: {} operations are open while it ends", spec().name, open_.size());
  groups_.groups_.erase(spec().id.value);
}

std::optional<int> RouterGroup::IndexOf(Rank rank) const {
  const auto found = std::ranges::lower_bound(by_rank_, rank, {}, &std::pair<Rank, int>::first);
  if (found == by_rank_.end() || found->first != rank) return std::nullopt;
  return found->second;
}

Task<Status> RouterGroup::Run(GroupOperation operation) {
  const int64_t block_bytes = groups_.options_.slot_bytes;
  std::unique_ptr<GroupTransfer> transfer;
  if (GoesByNeighbours(operation.kind, spec().sums)) {
    transfer = std::make_unique<NeighbourTransfer>(*this, operation, block_bytes);
  } else {
    transfer = std::make_unique<DirectTransfer>(*this, operation, block_bytes);
  }
  co_return co_await Wait(*this, operation.purpose, std::move(transfer));
}

void RouterGroup::Begin(Wait& wait, GroupPurpose purpose, std::unique_ptr<GroupTransfer> transfer) {
  const uint64_t sequence = ++num_begun_;
  if (broken_) return wait.Ended(*broken_);
  Open& open = *open_.emplace_back(std::make_unique<Open>());
  open.group = this;
  open.wait = &wait;
  open.purpose = purpose;
  open.transfer = std::move(transfer);
  open.transfer->set_sequence(sequence);
  open.loans.resize(member_names_.size());
  for (int from = 0; from < size(); ++from) {
    auto& early = early_[static_cast<size_t>(from)];
    while (!early.empty() && early.front().message.sequence == sequence) {
      Held held = std::move(early.front());
      early.pop_front();
      const Status taken = TakeNow(from, held.message, std::move(held.bulk), open);
      if (!taken.ok()) return Break(taken.error(), /*tell=*/true);
    }
  }
  Advance();
  if (Open* still_open = Find(sequence)) BeginRecord(*still_open);
}

void RouterGroup::BeginRecord(Open& open) {
  open.text = RecordText(open.transfer->sequence(), open.transfer->signature(), open.purpose);
  open.missing = MissingFor(open);
  open.subject = {
      .waiter = waiter_,
      .activity = open.text,
      .owed = "blocks",
      .from = member_names_[static_cast<size_t>(open.missing)],
      .step = open.purpose.step,
      .microbatch = open.purpose.microbatch,
      .from_rank = spec().ranks[static_cast<size_t>(open.missing)].value,
      .deadline_ms = spec().tell_ms,
      .detail =
          [](const void* about) { return static_cast<const Open*>(about)->transfer->Missing(); },
      .about = &open};
  Scheduler& scheduler = groups_.router_.scheduler();
  open.record = scheduler.waits().Begin(open.subject);
  if (spec().deadline_ms <= 0) return;
  open.fire = [](TimerNode* timer) {
    auto* passed = static_cast<Open*>(timer);
    passed->group->DeadlinePassed(*passed);
  };
  scheduler.timers().Arm(&open, scheduler.now_ns() + spec().deadline_ms * TimerWheel::kTickNs);
}

int RouterGroup::MissingFor(const Open& open) const {
  const int missing = open.FirstMissing();
  return missing >= 0 ? missing : open_.front()->FirstMissing();
}

void RouterGroup::DeadlinePassed(Open& open) {
  Break(Error{ErrorCode::kDeadlineExceeded, DeadlineSentence(open.subject)}, /*tell=*/true);
}

void RouterGroup::Take(int from, WithBulk<GroupBlock> block) {
  if (broken_) return;
  const GroupBlock& message = block.message;
  if (message.sequence > num_begun_) {
    early_[static_cast<size_t>(from)].push_back({message, std::move(block.bulk)});
    return;
  }
  Open* open = Find(message.sequence);
  if (open == nullptr) return TakeLate(from, message);
  const Status taken = TakeNow(from, message, std::move(block.bulk), *open);
  if (!taken.ok()) return Break(taken.error(), /*tell=*/true);
  Advance();
}

Status RouterGroup::TakeNow(int from, const GroupBlock& message, Bulk bulk, Open& open) {
  const OperationSignature theirs = SaidBy(message);
  const OperationSignature& mine = open.transfer->signature();
  if (mine != theirs) return Difference(message.sequence, mine, from, theirs);
  Result<Bulk> bytes = BytesOf(from, message, std::move(bulk), open);
  Status taken = bytes.ok() ? open.transfer->Take(from, message, *std::move(bytes))
                            : Status(std::move(bytes).error());
  if (taken.ok()) return {};
  return Context(
      fmt::format("group {}: operation {}, {}", spec().name, message.sequence, Text(mine)),
      std::move(taken).error());
}

// A block's bytes: beside the message, or in place in the sender's memory. Letting them go lets
// `beside` go, and so returns the credit.
Result<Bulk> RouterGroup::BytesOf(int from, const GroupBlock& message, Bulk beside, Open& open) {
  if (message.lent.num_bytes == 0) return Result<Bulk>(std::move(beside));
  const auto member = static_cast<size_t>(from);
  ASSIGN_OR_RETURN(LentMemory::Borrowed borrowed,
                   groups_.lent_.Borrow(spec().ranks[member], message.lent));
  open.loans[member].borrowed = message.lent.mark;
  return Bulk(borrowed.bytes,
              [memory = std::move(borrowed.memory),
               held = std::make_shared<Bulk>(std::move(beside))] { held->Release(); });
}

void RouterGroup::TakeRead(int from, uint64_t sequence) {
  Open* open = Find(sequence);
  if (open == nullptr || !open->loans[static_cast<size_t>(from)].lent) return;
  open->loans[static_cast<size_t>(from)].was_read = true;
  Advance();
}

// To every member whose memory the operation needs no more.
Status RouterGroup::SayRead(Open& open) {
  for (size_t member = 0; member < open.loans.size(); ++member) {
    Loan& loan = open.loans[member];
    if (!loan.borrowed || loan.said_read) continue;
    if (!open.transfer->UsedAllFrom(static_cast<int>(member))) continue;
    loan.said_read = true;
    RETURN_IF_ERROR(members_[member].Send(BlocksRead{.sequence = open.transfer->sequence(),
                                                     .group = spec().id.value,
                                                     .rank = spec().self.value}));
  }
  return {};
}

bool RouterGroup::IsWithdrawn(const Open& open) const {
  for (size_t member = 0; member < open.loans.size(); ++member) {
    const auto& mark = open.loans[member].borrowed;
    if (mark && groups_.lent_.IsWithdrawn(spec().ranks[member], *mark)) return true;
  }
  return false;
}

int RouterGroup::Open::FirstReader() const {
  const auto reader =
      std::ranges::find_if(loans, [](const Loan& loan) { return loan.lent && !loan.was_read; });
  return reader == loans.end() ? -1 : static_cast<int>(reader - loans.begin());
}

int RouterGroup::Open::FirstMissing() const {
  const int missing = transfer->FirstMissing();
  if (missing >= 0) return missing;
  if (const int reader = FirstReader(); reader >= 0) return reader;
  // What is here was withdrawn (E3): a lender owes its fault.
  const auto lender =
      std::ranges::find_if(loans, [](const Loan& loan) { return loan.borrowed.has_value(); });
  return lender == loans.end() ? -1 : static_cast<int>(lender - loans.begin());
}

// Of an operation that has ended here: the greeting of a shift's, or a difference.
void RouterGroup::TakeLate(int from, const GroupBlock& message) {
  const OperationSignature theirs = SaidBy(message);
  for (const auto& [sequence, mine] : ended_) {
    if (sequence != message.sequence || mine == theirs) continue;
    return Break(Difference(sequence, mine, from, theirs), /*tell=*/true);
  }
}

void RouterGroup::Advance() {
  bool sent = true;
  while (sent) {
    sent = false;
    for (int member = 0; member < size() && !broken_; ++member) {
      if (member != index()) sent |= SendTo(member);
    }
  }
  bool in_turn = true;  // whatever began before has ended (G5)
  for (size_t position = 0; position < open_.size();) {
    Open& open = *open_[position];
    const Status said = SayRead(open);
    if (!said.ok() && said.error().code != ErrorCode::kPeerDown) {
      return Break(Context("group " + spec().name, said.error()), /*tell=*/true);
    }
    in_turn = in_turn && open.done() && !IsWithdrawn(open);  // E3
    if (in_turn) {
      End(position, {});
      continue;
    }
    const int missing = MissingFor(open);
    if (open.record.waiting() && missing >= 0 && missing != open.missing) {
      open.missing = missing;
      open.subject.from = member_names_[static_cast<size_t>(missing)];
      open.record.OwedBy(open.subject.from);
    }
    ++position;
  }
}

bool RouterGroup::SendTo(int member) {
  const Rank rank = spec().ranks[static_cast<size_t>(member)];
  if (groups_.router_.transport().Credits(rank, channel_) <= 0) return false;
  for (const auto& open : open_) {
    if (IsWithdrawn(*open)) return false;  // E3
    if (const auto block = open->transfer->Next(member)) {
      const Result<bool> sent = Send(member, *block, *open);
      if (!sent.ok()) {
        if (sent.error().code == ErrorCode::kResourceExhausted) return false;
        Break(Context("group " + spec().name, sent.error()), /*tell=*/true);
        return false;
      }
      if (!*sent) return false;  // E3
      open->transfer->Sent(member, *block);
      CountSent(open->transfer->CountsAs(block->message.part), std::ssize(block->bytes));
      return true;
    }
    if (!open->transfer->SentAllTo(member)) return false;  // E1
  }
  return false;
}

Result<bool> RouterGroup::Send(int member, const GroupTransfer::OutgoingBlock& block, Open& open) {
  const auto to = static_cast<size_t>(member);
  const Postmark postmark{.channel = channel_,
                          .step = std::max<int64_t>(open.purpose.step, 0),
                          .microbatch = open.purpose.microbatch};
  if (mark_ && block.stays) {
    if (const auto place = groups_.lent_.Lend(spec().ranks[to], block.bytes, *mark_)) {
      GroupBlock message = block.message;
      message.lent = *place;
      open.loans[to].lent = true;
      RETURN_IF_ERROR(members_[to].SendBulk(
          message, {}, [] {}, postmark));
      return true;
    }
  }
  StagingPool::Staged staged = staging_->Fill(
      block.bytes.size(), [&](std::byte* bytes) { open.transfer->Write(block, bytes); });
  if (block.added != nullptr && IsWithdrawn(open)) {  // E3
    staged.done();
    return false;
  }
  RETURN_IF_ERROR(
      members_[to].SendBulk(block.message, staged.bytes, std::move(staged.done), postmark));
  return true;
}

void RouterGroup::End(size_t position, Status status) {
  const auto place = open_.begin() + static_cast<std::ptrdiff_t>(position);
  const std::unique_ptr<Open> open = std::move(*place);
  open_.erase(place);
  groups_.router_.scheduler().timers().Cancel(open.get());
  ended_.emplace_back(open->transfer->sequence(), open->transfer->signature());
  if (ended_.size() > kEndedKept) ended_.pop_front();
  if (status.ok() && open->wait != nullptr) {
    const GroupOperationKind sums = open->transfer->CountsAs(BlockPart::kSum);
    const GroupOperationKind copies = open->transfer->CountsAs(BlockPart::kCopy);
    CountEnded(sums);
    if (copies != sums) CountEnded(copies);
  }
  if (open->wait != nullptr) open->wait->Ended(std::move(status));
}

// Its memory goes: nothing refers to it when this returns.
void RouterGroup::Abandon(Wait& wait) {
  const auto found = std::ranges::find(open_, &wait, [](const auto& open) { return open->wait; });
  CHECK(found != open_.end());
  Open& open = **found;
  Error error =
      MakeError(ErrorCode::kCancelled, "group {}: {} gave up operation {}, {}", spec().name,
                waiter_, open.transfer->sequence(), Text(open.transfer->signature()));
  open.wait = nullptr;
  End(static_cast<size_t>(found - open_.begin()), {});
  Break(std::move(error), /*tell=*/true);
}

void RouterGroup::Break(Error error, bool tell) {
  if (broken_) return;
  broken_ = error;
  if (mark_) groups_.lent_.Withdraw(*mark_);  // before tasks get their memory back
  for (auto& early : early_) early.clear();
  while (!open_.empty()) End(0, error);
  if (tell) Tell(error);
  SayBroken(error);
}

void RouterGroup::Tell(const Error& error) {
  GroupFault fault{.group = spec().id.value, .code = static_cast<uint8_t>(error.code)};
  fault.text_bytes = std::min(error.message.size(), GroupFault::kTextBytes);
  std::memcpy(fault.text, error.message.data(), fault.text_bytes);
  for (int member = 0; member < size(); ++member) {
    // A member that cannot be told is lost, or will be said to be.
    if (member != index()) (void)members_[static_cast<size_t>(member)].Send(fault);
  }
}

RouterGroup::Open* RouterGroup::Find(uint64_t sequence) const {
  const auto found = std::ranges::find(open_, sequence,
                                       [](const auto& open) { return open->transfer->sequence(); });
  return found == open_.end() ? nullptr : found->get();
}

}  // namespace troupe
