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
                       const Deadlines& deadlines)
    : plan_(plan),
      self_(router.self()),
      deadlines_(deadlines),
      groups_(router, {.elements = ElementTypes(),
                       .actor_index = kCollectiveIndex,
                       .slots_per_peer = kReductionSlots,
                       .slot_bytes = plan.ReductionSlotBytes(),
                       .ledger = &ledger,
                       .lends = &ledger}) {}

Status RankGroups::Open() {
  for (size_t i = 0; i < plan_.reductions.size(); ++i) {
    std::vector<Rank> ranks = plan_.MembersOf(plan_.reductions[i], self_);
    if (ranks.size() < 2 || !std::ranges::binary_search(ranks, self_)) continue;
    GroupSpec spec{.id = GroupId(static_cast<uint32_t>(i)),
                   .name = fmt::format("gradients {}", i),
                   .ranks = std::move(ranks),
                   .self = self_,
                   .deadline_ms = deadlines_.end_ms,
                   .tell_ms = deadlines_.tell_ms};
    const auto channel = static_cast<uint16_t>(kFirstGroupChannel + i);
    ASSIGN_OR_RETURN(of_reductions_[static_cast<int32_t>(i)],
                     groups_.Open(std::move(spec), channel));
  }
  return {};
}

std::map<int32_t, StageReduction> RankGroups::ReductionsOf(
    StageId stage, const std::function<StageModel*(StageId)>& model_of) const {
  std::map<int32_t, StageReduction> started;
  for (size_t i = 0; i < plan_.reductions.size(); ++i) {
    const GradientReduction& reduction = plan_.reductions[i];
    const std::vector<StageId> copies =
        StagesOn(plan_.train, reduction, plan_.PipelineRankOf(self_));
    if (copies.empty() || copies.back() != stage) continue;
    const auto index = static_cast<int32_t>(i);
    StageReduction& own = started[index];
    own.weights = reduction.weights;
    own.group = OfReduction(index);
    std::ranges::transform(copies, std::back_inserter(own.copies), model_of);
  }
  return started;
}

Group* RankGroups::OfShards(StageId stage) const {
  if (plan_.ShardPlaceOf(self_).num_owners == 1) return nullptr;
  for (size_t i = 0; i < plan_.reductions.size(); ++i) {
    const GradientReduction& reduction = plan_.reductions[i];
    if (reduction.weights == SharedWeights::kStage && reduction.stages.front() == stage) {
      return OfReduction(static_cast<int32_t>(i));
    }
  }
  return nullptr;
}

std::vector<CommunicationVolume> RankGroups::Sent() const {
  std::vector<CommunicationVolume> rows;
  for (const auto& [index, group] : of_reductions_) {
    const Axis axis = AxisOf(plan_.reductions[static_cast<size_t>(index)]);
    for (int i = 0; i < kNumGroupOperationKinds; ++i) {
      const auto kind = static_cast<GroupOperationKind>(i);
      const GroupTraffic& traffic = group->traffic(kind);
      AddVolume(rows, {axis, GroupOperationName(kind), traffic.num_operations, traffic.sent_bytes});
    }
  }
  return rows;
}

Group* RankGroups::OfReduction(int32_t reduction) const {
  const auto group = of_reductions_.find(reduction);
  return group == of_reductions_.end() ? nullptr : group->second.get();
}

}  // namespace troupe
