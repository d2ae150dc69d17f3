#include "actors/model/still_peers.h"

#include <utility>

#include "kernels/tensor_view.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

template <DType kDType>
constexpr ElementType ElementTypeOf() {
  return {.dtype = static_cast<uint8_t>(kDType),
          .num_bytes = DTypeBytes(kDType),
          .name = DTypeName(kDType)};
}

// Of activations, their gradients, and what a batch says of its tokens.
constexpr std::array kElementTypes = {
    ElementTypeOf<DType::kFloat32>(), ElementTypeOf<DType::kBFloat16>(),
    ElementTypeOf<DType::kFloat64>(), ElementTypeOf<DType::kInt32>()};

GroupSpec SpecOf(int num_ranks, int index) {
  GroupSpec spec{.name = "cp", .self = Rank(index)};
  for (int rank = 0; rank < num_ranks; ++rank) spec.ranks.emplace_back(rank);
  return spec;
}

}  // namespace

void StillRing::Expect(const KvHop& hop, int64_t num_bytes, KvArrival& arrival) {
  expected_[static_cast<size_t>(hop.kind)] = {&arrival, num_bytes};
}

void StillRing::Send(const KvHop& hop, std::span<const std::byte> block, KvDeparture& departure) {
  const Expected expected = std::exchange(expected_[static_cast<size_t>(hop.kind)], {});
  CHECK(expected.arrival != nullptr && expected.num_bytes == std::ssize(block),
        "a block of {} bytes is sent where {} are expected", block.size(), expected.num_bytes);
  // The sender owns it, and sends no block that others read.
  expected.arrival->block = {const_cast<std::byte*>(block.data()), block.size()};
  departure.gone.Set();
  expected.arrival->here.Set();
}

StillGroup::StillGroup(int num_ranks, int index) : Group(SpecOf(num_ranks, index), kElementTypes) {}

Task<Status> StillGroup::Run(GroupOperation /*operation*/) { co_return Status{}; }

}  // namespace troupe
