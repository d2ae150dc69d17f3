#include "runtime/collective/neighbour_transfer.h"

#include <cstring>
#include <utility>

namespace troupe {

NeighbourTransfer::Progress::Progress(const std::vector<NeighbourBlock>& all, int size)
    : blocks(all), taken(static_cast<size_t>(size)), here(static_cast<size_t>(size)) {
  while (outgoing < blocks.size() && blocks[outgoing].to < 0) ++outgoing;
}

const NeighbourBlock* NeighbourTransfer::Progress::Outgoing() const {
  return outgoing < blocks.size() ? &blocks[outgoing] : nullptr;
}

void NeighbourTransfer::Progress::WentOut() {
  do {
    ++outgoing;
  } while (outgoing < blocks.size() && blocks[outgoing].to < 0);
}

size_t NeighbourTransfer::Progress::Incoming(int from) const {
  size_t next = taken[static_cast<size_t>(from)];
  while (blocks[next].from != from) ++next;
  return next;
}

NeighbourTransfer::NeighbourTransfer(const Group& group, const GroupOperation& operation,
                                     int64_t block_bytes)
    : GroupTransfer(group, operation, block_bytes),
      algorithm_(group.spec().sums),
      in_place_(operation.kind == GroupOperationKind::kAllReduce),
      plan_(PlanNeighbours(operation, group.spec(), group.index(), block_elements())),
      sums_(plan_.sums, group.size()),
      copies_(plan_.copies, group.size()) {
  for (const NeighbourBlock& block : plan_.sums) {
    if (block.to >= 0) at(block.to).sum_to += block.run.count;
    if (block.from >= 0) at(block.from).sum_from += block.run.count;
  }
  for (const NeighbourBlock& block : plan_.copies) {
    if (block.to >= 0) at(block.to).copy_to += block.run.count;
    if (block.from >= 0) at(block.from).copy_from += block.run.count;
  }
}

GroupOperationKind NeighbourTransfer::CountsAs(BlockPart part) const {
  if (algorithm_ != SumAlgorithm::kChain) return signature().kind;
  return part == BlockPart::kSum ? GroupOperationKind::kReduce : GroupOperationKind::kBroadcast;
}

std::span<const std::byte> NeighbourTransfer::InputOf(const NeighbourBlock& block) const {
  return BytesAt(operation().input.data, block.run.first, block.run.count);
}

std::optional<GroupTransfer::OutgoingBlock> NeighbourTransfer::Next(int to) const {
  if (copies_.Outgoing() != nullptr && copies_.Outgoing()->to == to) {
    if (auto copy = NextCopy()) return copy;  // first, since nobody holds it
  }
  if (sums_.Outgoing() != nullptr && sums_.Outgoing()->to == to) {
    if (auto sum = NextSum()) return sum;
  }
  return Greeting(to);
}

std::optional<GroupTransfer::OutgoingBlock> NeighbourTransfer::NextCopy() const {
  const NeighbourBlock& block = *copies_.Outgoing();
  const int num_ready = block.from < 0 ? num_whole_ : copies_.here[static_cast<size_t>(block.from)];
  if (num_ready == 0) return std::nullopt;
  return OutgoingBlock{MessageTo(block.to, BlockPart::kCopy),
                       BytesAt(operation().output.data, block.run.first, block.run.count)};
}

std::optional<GroupTransfer::OutgoingBlock> NeighbourTransfer::NextSum() const {
  const NeighbourBlock& block = *sums_.Outgoing();
  const GroupBlock message = MessageTo(block.to, BlockPart::kSum);
  const auto own = InputOf(block);
  if (block.from < 0) return OutgoingBlock{message, own};
  if (sums_.here[static_cast<size_t>(block.from)] == 0) return std::nullopt;
  if (in_place_) return OutgoingBlock{message, own};
  return OutgoingBlock{message, at(block.from).held.front().bytes(), /*stays=*/false, own.data()};
}

void NeighbourTransfer::WasSent(int, BlockPart part) {
  Progress& progress = part == BlockPart::kSum ? sums_ : copies_;
  const int from = progress.Outgoing()->from;
  progress.WentOut();
  if (from < 0) {
    if (part == BlockPart::kCopy) --num_whole_;
    return;
  }
  --progress.here[static_cast<size_t>(from)];
  if (part == BlockPart::kSum && !in_place_) at(from).held.pop_front();
}

int64_t NeighbourTransfer::CountFrom(int from, BlockPart part) const {
  const Progress& progress = part == BlockPart::kSum ? sums_ : copies_;
  return progress.blocks[progress.Incoming(from)].run.count;
}

void NeighbourTransfer::TakeCopy(int from, std::span<const std::byte> bytes) {
  const size_t next = copies_.Incoming(from);
  copies_.taken[static_cast<size_t>(from)] = next + 1;
  const NeighbourBlock& block = plan_.copies[next];
  std::memcpy(OutputAt(block.run.first), bytes.data(), bytes.size());
  if (block.to >= 0) ++copies_.here[static_cast<size_t>(from)];
}

void NeighbourTransfer::TakeSum(int from, Bulk bulk) {
  const size_t next = sums_.Incoming(from);
  sums_.taken[static_cast<size_t>(from)] = next + 1;
  const NeighbourBlock& block = plan_.sums[next];
  ++(block.to >= 0 ? sums_.here[static_cast<size_t>(from)] : num_whole_);
  if (block.to >= 0 && !in_place_) {
    at(from).held.push_back(std::move(bulk));
    return;
  }
  const void* const both[] = {bulk.bytes().data(), InputOf(block).data()};
  Sum(OutputAt(block.run.first - plan_.output_first), both, block.run.count);
}

}  // namespace troupe
