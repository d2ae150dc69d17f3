#include "runtime/collective/group_transfer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace troupe {

GroupTransfer::GroupTransfer(const Group& group, const GroupOperation& operation,
                             int64_t block_bytes)
    : group_(group),
      operation_(operation),
      signature_(SignatureOf(operation)),
      type_(operation.kind == GroupOperationKind::kBarrier ? nullptr
                                                           : &group.ElementOf(operation.dtype())),
      element_bytes_(group.ElementBytes(operation)),
      block_elements_(std::max<int64_t>(1, block_bytes / element_bytes_)),
      waits_for_all_(operation.kind != GroupOperationKind::kShift),
      members_(static_cast<size_t>(group.size())) {}

GroupBlock GroupTransfer::MessageTo(int to, BlockPart part) const {
  const Member& member = at(to);
  const bool is_sum = part == BlockPart::kSum;
  const bool is_copy = part == BlockPart::kCopy;
  return {.sequence = sequence_,
          .group = group_.spec().id.value,
          .kind = static_cast<uint8_t>(signature_.kind),
          .dtype = signature_.dtype,
          .part = part,
          .peer = signature_.peer,
          .total = signature_.total,
          .count = is_sum    ? member.sum_to
                   : is_copy ? member.copy_to
                             : member.sum_to + member.copy_to,
          .expects = ExpectedFrom(to),
          .first = is_sum    ? member.sum_sent
                   : is_copy ? member.copy_sent
                             : 0};
}

std::optional<GroupTransfer::OutgoingBlock> GroupTransfer::Greeting(int to) const {
  if (at(to).greeted) return std::nullopt;
  return OutgoingBlock{MessageTo(to, BlockPart::kNone), {}};
}

std::span<const std::byte> GroupTransfer::BytesAt(const void* data, int64_t first,
                                                  int64_t count) const {
  return {static_cast<const std::byte*>(data) + first * element_bytes_,
          static_cast<size_t>(count * element_bytes_)};
}

std::byte* GroupTransfer::OutputAt(int64_t first) const {
  return static_cast<std::byte*>(operation_.output.data) + first * element_bytes_;
}

void GroupTransfer::Sum(std::byte* out, std::span<const void* const> inputs, int64_t count) const {
  type_->sum(out, inputs.data(), static_cast<int>(inputs.size()), count);
}

void GroupTransfer::Write(const OutgoingBlock& block, std::byte* to) const {
  if (block.added == nullptr) {
    std::memcpy(to, block.bytes.data(), block.bytes.size());
    return;
  }
  const void* const both[] = {block.bytes.data(), block.added};
  Sum(to, both, static_cast<int64_t>(block.bytes.size()) / element_bytes_);
}

void GroupTransfer::Sent(int to, const OutgoingBlock& block) {
  Member& member = at(to);
  member.greeted = true;
  const auto count = static_cast<int64_t>(block.bytes.size()) / element_bytes_;
  const BlockPart part = block.message.part;
  if (part == BlockPart::kNone) return;
  (part == BlockPart::kSum ? member.sum_sent : member.copy_sent) += count;
  WasSent(to, part);
}

bool GroupTransfer::SentAllTo(int member) const {
  const Member& to = at(member);
  return to.greeted && to.sum_sent == to.sum_to && to.copy_sent == to.copy_to;
}

int64_t GroupTransfer::ExpectedFrom(int member) const {
  return at(member).sum_from + at(member).copy_from;
}

bool GroupTransfer::ReceivedAllFrom(int member) const {
  const Member& from = at(member);
  return (from.heard || !waits_for_all_) && from.sum_taken == from.sum_from &&
         from.copy_taken == from.copy_from;
}

bool GroupTransfer::UsedAllFrom(int member) const {
  return ReceivedAllFrom(member) && at(member).held.empty();
}

bool GroupTransfer::done() const {
  if (!SummedAll()) return false;
  for (int member = 0; member < size(); ++member) {
    if (member == index()) continue;
    if (!SentAllTo(member) || !ReceivedAllFrom(member)) return false;
  }
  return true;
}

Status GroupTransfer::Expected(int from, const GroupBlock& block, size_t num_bytes) const {
  const Member& member = at(from);
  const bool is_sum = block.part == BlockPart::kSum;
  const int64_t expected = is_sum                           ? member.sum_from
                           : block.part == BlockPart::kCopy ? member.copy_from
                                                            : ExpectedFrom(from);
  const auto differ = [&](int sender, int64_t sent, int receiver, int64_t wanted) {
    const std::vector<Rank>& ranks = group_.spec().ranks;
    return MakeError(ErrorCode::kFailed, "rank {} sends {} elements, and rank {} expects {}",
                     ranks[static_cast<size_t>(sender)], sent, ranks[static_cast<size_t>(receiver)],
                     wanted);
  };
  if (block.count != expected) return differ(from, block.count, index(), expected);
  const int64_t to_it = member.sum_to + member.copy_to;
  if (block.expects != to_it) return differ(index(), to_it, from, block.expects);
  const int64_t taken = is_sum ? member.sum_taken : member.copy_taken;
  const bool is_next =
      block.part == BlockPart::kNone
          ? !member.heard && num_bytes == 0
          : block.part <= BlockPart::kCopy && block.first == taken && taken < expected &&
                static_cast<int64_t>(num_bytes) == CountFrom(from, block.part) * element_bytes_;
  if (is_next) return {};
  return MakeError(
      ErrorCode::kCorrupt, "rank {} sent {} bytes at element {} of {}, and element {} was to come",
      group_.spec().ranks[static_cast<size_t>(from)], num_bytes, block.first, block.count, taken);
}

Status GroupTransfer::Take(int from, const GroupBlock& block, Bulk bulk) {
  const auto bytes = bulk.bytes();
  RETURN_IF_ERROR(Expected(from, block, bytes.size()));  // F1
  Member& member = at(from);
  member.heard = true;
  const auto count = static_cast<int64_t>(bytes.size()) / element_bytes_;
  if (block.part == BlockPart::kCopy) {
    TakeCopy(from, bytes);
    member.copy_taken += count;
  }
  if (block.part == BlockPart::kSum) {
    member.sum_taken += count;
    TakeSum(from, std::move(bulk));
  }
  return {};
}

bool GroupTransfer::WaitsFor(int member) const {
  if (member == index()) return false;
  return !ReceivedAllFrom(member) || Next(member).has_value();
}

int GroupTransfer::FirstMissing() const {
  int first = -1;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int member = 0; member < size(); ++member) {
    if (!WaitsFor(member)) continue;
    const Member& other = at(member);
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
  for (int member = 0; member < size(); ++member) {
    if (member != first && WaitsFor(member)) text += "; " + MissingOf(member);
  }
  return text;
}

std::string GroupTransfer::MissingOf(int member) const {
  const Member& other = at(member);
  const Rank rank = group_.spec().ranks[static_cast<size_t>(member)];
  if (ReceivedAllFrom(member)) return fmt::format("rank {} takes no more", rank);
  if (!other.heard) return fmt::format("nothing from rank {}", rank);
  return fmt::format("{} of {} bytes from rank {}",
                     (other.sum_taken + other.copy_taken) * element_bytes_,
                     ExpectedFrom(member) * element_bytes_, rank);
}

}  // namespace troupe
