#include "actors/rank_groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "actors/messages.h"
#include "kernels/ordered_sum.h"

namespace troupe {
namespace {

ElementType ElementTypeOf(DType dtype) {
  return {static_cast<uint8_t>(dtype), DTypeBytes(dtype), DTypeName(dtype), OrderedSumOf(dtype)};
}

std::span<const ElementType> ElementTypes() {
  static const std::array types = {ElementTypeOf(DType::kFloat32), ElementTypeOf(DType::kBFloat16),
                                   ElementTypeOf(DType::kFloat16), ElementTypeOf(DType::kFloat64),
                                   ElementTypeOf(DType::kInt32),   ElementTypeOf(DType::kInt64)};
  return types;
}

}  // namespace

RankGroups::RankGroups(RankRouter& router, const JobPlan& plan, MemoryLedger& ledger,
                       int64_t deadline_ms)
    : plan_(plan),
      self_(router.self()),
      deadline_ms_(deadline_ms),
      groups_(router, {.elements = ElementTypes(),
                       .actor_index = kCollectiveIndex,
                       .slots_per_peer = kReductionSlots,
                       .slot_bytes = plan.ReductionSlotBytes(),
                       .ledger = &ledger}) {}

Status RankGroups::Open() {
  for (size_t i = 0; i < plan_.reductions.size(); ++i) {
    std::vector<Rank> ranks = plan_.MembersOf(plan_.reductions[i], self_);
    if (ranks.size() < 2 || !std::ranges::binary_search(ranks, self_)) continue;
    GroupSpec spec{.id = GroupId(static_cast<uint32_t>(i)),
                   .name = fmt::format("gradients {}", i),
                   .ranks = std::move(ranks),
                   .self = self_,
                   .deadline_ms = deadline_ms_};
    const auto channel = static_cast<uint16_t>(kFirstGroupChannel + i);
    ASSIGN_OR_RETURN(of_reductions_[static_cast<int32_t>(i)],
                     groups_.Open(std::move(spec), channel));
  }
  return {};
}

Group* RankGroups::OfReduction(int32_t reduction) const {
  const auto group = of_reductions_.find(reduction);
  return group == of_reductions_.end() ? nullptr : group->second.get();
}

}  // namespace troupe
