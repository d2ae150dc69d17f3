#include "runtime/collective/direct_transfer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace troupe {
namespace {

size_t At(int member) { return static_cast<size_t>(member); }

}  // namespace

DirectTransfer::DirectTransfer(const Group& group, const GroupOperation& operation,
                               int64_t block_bytes)
    : GroupTransfer(group, operation, block_bytes),
      plan_(PlanOperation(operation, group.index(), group.size(), group.ElementBytes(operation))),
      inputs_(At(group.size())) {
  for (int member = 0; member < size(); ++member) {
    if (member == index()) continue;
    at(member).sum_to = plan_.sum_to[At(member)].count;
    at(member).copy_to = plan_.copy_to[At(member)].count;
    at(member).sum_from = plan_.summed.count;
    at(member).copy_from = plan_.copy_from[At(member)].count;
  }
  CopyOwnPart(operation, plan_, index(), group.ElementBytes(operation));
}

int64_t DirectTransfer::BlockCount(int64_t count, int64_t first) const {
  return std::min(block_elements(), count - first);
}

int64_t DirectTransfer::CopyReady(int to) const {
  return plan_.copies_sum ? summed_ : plan_.copy_to[At(to)].count;
}

std::optional<GroupTransfer::OutgoingBlock> DirectTransfer::Next(int to) const {
  const Member& member = at(to);
  const ElementRun copies = plan_.copy_to[At(to)];
  const ElementRun sums = plan_.sum_to[At(to)];
  if (member.copy_sent < CopyReady(to)) {  // first, since it waits for nobody there
    const void* from = plan_.copies_sum ? operation().output.data : operation().input.data;
    return OutgoingBlock{
        MessageTo(to, BlockPart::kCopy),
        BytesAt(from, copies.first + member.copy_sent, BlockCount(copies.count, member.copy_sent))};
  }
  if (member.sum_sent < sums.count) {
    return OutgoingBlock{MessageTo(to, BlockPart::kSum),
                         BytesAt(operation().input.data, sums.first + member.sum_sent,
                                 BlockCount(sums.count, member.sum_sent)),
                         /*stays=*/sums != plan_.summed};
  }
  return copies.count == 0 ? Greeting(to) : std::nullopt;
}

int64_t DirectTransfer::CountFrom(int from, BlockPart part) const {
  const Member& member = at(from);
  return part == BlockPart::kSum ? BlockCount(member.sum_from, member.sum_taken)
                                 : BlockCount(member.copy_from, member.copy_taken);
}

void DirectTransfer::TakeCopy(int from, std::span<const std::byte> bytes) {
  const int64_t first = plan_.copy_from[At(from)].first + at(from).copy_taken;
  std::memcpy(OutputAt(first), bytes.data(), bytes.size());
}

void DirectTransfer::TakeSum(int from, Bulk bulk) {
  at(from).held.push_back(std::move(bulk));
  SumWhatIsHere();
}

void DirectTransfer::WasSent(int, BlockPart part) {
  if (part == BlockPart::kSum) SumWhatIsHere();
}

// Whether the next `count` elements are here from everybody, and nobody needs what they overwrite.
bool DirectTransfer::MaySum(int64_t count) const {
  for (int member = 0; member < size(); ++member) {
    if (member == index()) continue;
    if (at(member).held.empty()) return false;
    const bool same_input = plan_.sum_to[At(member)] == plan_.summed;
    if (same_input && at(member).sum_sent < summed_ + count) return false;  // F2
  }
  return true;
}

void DirectTransfer::SumWhatIsHere() {
  while (summed_ < plan_.summed.count) {
    const int64_t count = BlockCount(plan_.summed.count, summed_);
    if (!MaySum(count)) return;
    const auto own = BytesAt(operation().input.data, plan_.summed.first + summed_, count);
    for (int member = 0; member < size(); ++member) {
      inputs_[At(member)] = member == index() ? own.data() : at(member).held.front().bytes().data();
    }
    Sum(OutputAt(plan_.sum_first + summed_), inputs_, count);
    for (int member = 0; member < size(); ++member) {
      if (member != index()) at(member).held.pop_front();
    }
    summed_ += count;
  }
}

}  // namespace troupe
