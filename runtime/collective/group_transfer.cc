#include "runtime/collective/group_transfer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace troupe {
namespace {

size_t At(int member) { return static_cast<size_t>(member); }

}  // namespace

GroupTransfer::GroupTransfer(const Group& group, const GroupOperation& operation,
                             OperationPlan plan, uint64_t sequence, int64_t block_bytes)
    : group_(group),
      operation_(operation),
      signature_(SignatureOf(operation)),
      sequence_(sequence),
      type_(operation.kind == GroupOperationKind::kBarrier ? nullptr
                                                           : &group.ElementOf(operation.dtype())),
      element_bytes_(type_ != nullptr ? type_->num_bytes : 1),
      block_elements_(std::max<int64_t>(1, block_bytes / element_bytes_)),
      plan_(std::move(plan)),
      members_(At(group.size())),
      inputs_(members_.size()) {}

GroupBlock GroupTransfer::MessageTo(int to, BlockPart part, int64_t count, int64_t first) const {
  return {.sequence = sequence_,
          .group = group_.spec().id.value,
          .kind = static_cast<uint8_t>(signature_.kind),
          .dtype = signature_.dtype,
          .part = part,
          .peer = signature_.peer,
          .total = signature_.total,
          .count = count,
          .expects = ExpectedFrom(to),
          .first = first};
}

int64_t GroupTransfer::BlockCount(int64_t count, int64_t first) const {
  return std::min(block_elements_, count - first);
}

int64_t GroupTransfer::CopyReady(int to) const {
  return plan_.copies_sum ? summed_ : plan_.copy_to[At(to)].count;
}

std::optional<GroupTransfer::OutgoingBlock> GroupTransfer::Next(int to) const {
  const Member& member = members_[At(to)];
  const ElementRun copies = plan_.copy_to[At(to)];
  const ElementRun sums = plan_.sum_to[At(to)];
  const auto bytes_of = [this](const void* data, int64_t first, int64_t count) {
    return std::span(static_cast<const std::byte*>(data) + first * element_bytes_,
                     static_cast<size_t>(count * element_bytes_));
  };
  if (member.copy_sent < CopyReady(to)) {  // first, since it waits for nobody there
    const void* from = plan_.copies_sum ? operation_.output.data : operation_.input.data;
    return OutgoingBlock{MessageTo(to, BlockPart::kCopy, copies.count, member.copy_sent),
                         bytes_of(from, copies.first + member.copy_sent,
                                  BlockCount(copies.count, member.copy_sent))};
  }
  if (member.sum_sent < sums.count) {
    return OutgoingBlock{MessageTo(to, BlockPart::kSum, sums.count, member.sum_sent),
                         bytes_of(operation_.input.data, sums.first + member.sum_sent,
                                  BlockCount(sums.count, member.sum_sent)),
                         /*stays=*/sums != plan_.summed};
  }
  if (!member.greeted && copies.count == 0) {
    return OutgoingBlock{MessageTo(to, BlockPart::kNone, 0, 0), {}};
  }
  return std::nullopt;
}

void GroupTransfer::Sent(int to, const OutgoingBlock& block) {
  Member& member = members_[At(to)];
  member.greeted = true;
  const auto count = static_cast<int64_t>(block.bytes.size()) / element_bytes_;
  if (block.message.part == BlockPart::kCopy) member.copy_sent += count;
  if (block.message.part == BlockPart::kSum) {
    member.sum_sent += count;
    SumWhatIsHere();
  }
}

bool GroupTransfer::SentAllTo(int member) const {
  const Member& to = members_[At(member)];
  return to.greeted && to.sum_sent == plan_.sum_to[At(member)].count &&
         to.copy_sent == plan_.copy_to[At(member)].count;
}

int64_t GroupTransfer::ExpectedFrom(int member) const {
  return plan_.summed.count + plan_.copy_from[At(member)].count;
}

bool GroupTransfer::ReceivedAllFrom(int member) const {
  const Member& from = members_[At(member)];
  return (from.heard || !plan_.waits_for_all) && from.sum_taken == plan_.summed.count &&
         from.copy_taken == plan_.copy_from[At(member)].count;
}

bool GroupTransfer::UsedAllFrom(int member) const {
  return ReceivedAllFrom(member) && members_[At(member)].held.empty();
}

bool GroupTransfer::done() const {
  if (summed_ != plan_.summed.count) return false;
  for (int member = 0; member < group_.size(); ++member) {
    if (member == group_.index()) continue;
    if (!SentAllTo(member) || !ReceivedAllFrom(member)) return false;
  }
  return true;
}

Status GroupTransfer::Expected(int from, const GroupBlock& block, size_t num_bytes) const {
  const Member& member = members_[At(from)];
  const bool is_sum = block.part == BlockPart::kSum;
  const int64_t expected = is_sum                           ? plan_.summed.count
                           : block.part == BlockPart::kCopy ? plan_.copy_from[At(from)].count
                                                            : ExpectedFrom(from);
  const auto differ = [&](int sender, int64_t sent, int receiver, int64_t wanted) {
    return MakeError(ErrorCode::kFailed, "rank {} sends {} elements, and rank {} expects {}",
                     group_.spec().ranks[At(sender)], sent, group_.spec().ranks[At(receiver)],
                     wanted);
  };
  if (block.count != expected) return differ(from, block.count, group_.index(), expected);
  const int64_t to_it = plan_.sum_to[At(from)].count + plan_.copy_to[At(from)].count;
  if (block.expects != to_it) return differ(group_.index(), to_it, from, block.expects);
  const int64_t taken = is_sum ? member.sum_taken : member.copy_taken;
  const bool is_next =
      block.part == BlockPart::kNone
          ? !member.heard && num_bytes == 0
          : block.first == taken && taken < expected &&
                static_cast<int64_t>(num_bytes) == BlockCount(expected, taken) * element_bytes_;
  if (is_next && block.part <= BlockPart::kCopy) return {};
  return MakeError(ErrorCode::kCorrupt,
                   "rank {} sent {} bytes at element {} of {}, and element {} was to come",
                   group_.spec().ranks[At(from)], num_bytes, block.first, block.count, taken);
}

Status GroupTransfer::Take(int from, const GroupBlock& block, Bulk bulk) {
  const auto bytes = bulk.bytes();
  RETURN_IF_ERROR(Expected(from, block, bytes.size()));  // F1
  Member& member = members_[At(from)];
  member.heard = true;
  const auto count = static_cast<int64_t>(bytes.size()) / element_bytes_;
  if (block.part == BlockPart::kCopy) {
    const int64_t first = plan_.copy_from[At(from)].first + member.copy_taken;
    std::memcpy(static_cast<std::byte*>(operation_.output.data) + first * element_bytes_,
                bytes.data(), bytes.size());
    member.copy_taken += count;
  }
  if (block.part == BlockPart::kSum) {
    member.sum_taken += count;
    member.held.push_back(std::move(bulk));
    SumWhatIsHere();
  }
  return {};
}

// Whether the next `count` elements are here from everybody, and nobody needs what they overwrite.
bool GroupTransfer::MaySum(int64_t count) const {
  for (int member = 0; member < group_.size(); ++member) {
    if (member == group_.index()) continue;
    if (members_[At(member)].held.empty()) return false;
    const bool same_input = plan_.sum_to[At(member)] == plan_.summed;
    if (same_input && members_[At(member)].sum_sent < summed_ + count) return false;  // F2
  }
  return true;
}

void GroupTransfer::SumWhatIsHere() {
  while (summed_ < plan_.summed.count) {
    const int64_t count = BlockCount(plan_.summed.count, summed_);
    if (!MaySum(count)) return;
    const auto* own = static_cast<const std::byte*>(operation_.input.data) +
                      (plan_.summed.first + summed_) * element_bytes_;
    for (int member = 0; member < group_.size(); ++member) {
      inputs_[At(member)] = member == group_.index()
                                ? static_cast<const void*>(own)
                                : members_[At(member)].held.front().bytes().data();
    }
    type_->sum(static_cast<std::byte*>(operation_.output.data) +
                   (plan_.sum_first + summed_) * element_bytes_,
               inputs_.data(), group_.size(), count);
    for (Member& member : members_) {
      if (!member.held.empty()) member.held.erase(member.held.begin());
    }
    summed_ += count;
  }
}

int GroupTransfer::FirstMissing() const {
  int first = -1;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int member = 0; member < group_.size(); ++member) {
    if (member == group_.index() || (ReceivedAllFrom(member) && SentAllTo(member))) continue;
    const Member& other = members_[At(member)];
    const int64_t received = ReceivedAllFrom(member) ? least - 1  // whoever sent less comes first
                             : other.heard           ? other.sum_taken + other.copy_taken
                                                     : -1;
    if (received >= least) continue;
    least = received;
    first = member;
  }
  return first;
}

std::string GroupTransfer::Missing() const {
  const int first = FirstMissing();
  if (first < 0) return "";
  std::string text = MissingOf(first);
  for (int member = 0; member < group_.size(); ++member) {
    if (member == group_.index() || member == first) continue;
    if (!ReceivedAllFrom(member) || !SentAllTo(member)) text += "; " + MissingOf(member);
  }
  return text;
}

std::string GroupTransfer::MissingOf(int member) const {
  const Member& other = members_[At(member)];
  const Rank rank = group_.spec().ranks[At(member)];
  if (ReceivedAllFrom(member)) return fmt::format("rank {} takes no more", rank);
  if (!other.heard) return fmt::format("nothing from rank {}", rank);
  return fmt::format("{} of {} bytes from rank {}",
                     (other.sum_taken + other.copy_taken) * element_bytes_,
                     ExpectedFrom(member) * element_bytes_, rank);
}

}  // namespace troupe
