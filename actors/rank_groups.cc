#include "actors/rank_groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "actors/element_types.h"
#include "actors/messages.h"

namespace troupe {
namespace {

SumAlgorithm SumsOf(ReductionAlgorithm algorithm) {
  switch (algorithm) {
    case ReductionAlgorithm::kOrdered:
      return SumAlgorithm::kOrdered;
    case ReductionAlgorithm::kRing:
      return SumAlgorithm::kRing;
    case ReductionAlgorithm::kChain:
      return SumAlgorithm::kChain;
  }
  return SumAlgorithm::kOrdered;
}

}  // namespace

RankGroups::RankGroups(RankRouter& router, const JobPlan& plan, MemoryLedger& ledger,
                       const Deadlines& deadlines, std::vector<int> hosts)
    : plan_(plan),
      self_(router.self()),
      deadlines_(deadlines),
      hosts_(std::move(hosts)),
      groups_(router, {.elements = ElementTypes(),
                       .actor_index = kCollectiveIndex,
                       .slots_per_peer = kReductionSlots,
                       .slot_bytes = plan.ReductionSlotBytes(),
                       .ledger = &ledger,
                       .lends = &ledger}) {}

Status RankGroups::Open() {
  const PipelineRank place = plan_.PipelineRankOf(self_);
  for (size_t i = 0; i < plan_.reductions.size(); ++i) {
    const GradientReduction& reduction = plan_.reductions[i];
    const std::vector<StageId> stages = StagesOn(plan_.train, reduction, place);
    if (stages.empty()) continue;
    const auto index = static_cast<int32_t>(i);
    RETURN_IF_ERROR(OpenOne(index, Members::kAll, plan_.MembersOf(reduction, self_)));
    if (reduction.weights != SharedWeights::kStage || !plan_.RepeatsShards()) continue;
    RETURN_IF_ERROR(OpenOne(index, Members::kOwners, plan_.OwnersOf(self_)));
    RETURN_IF_ERROR(
        OpenOne(index, Members::kReplicas, plan_.ShardReplicasOf(self_, stages.front())));
  }
  return OpenLanes();
}

// Numbers and channels are the same at every rank: by reduction, then those of owners and replicas,
// then those of lanes.
Status RankGroups::OpenOne(int32_t reduction, Members members, std::vector<Rank> ranks) {
  if (ranks.size() < 2) return {};
  const bool of_stage =
      plan_.reductions[static_cast<size_t>(reduction)].weights == SharedWeights::kStage;
  static constexpr std::string_view kNames[] = {"gradients", "owners", "replicas"};
  int number = reduction;
  if (members != Members::kAll) {
    const auto num_reductions = static_cast<int>(plan_.reductions.size());
    number = num_reductions + 2 * reduction + (members == Members::kOwners ? 0 : 1);
  }
  ASSIGN_OR_RETURN(
      (opened_[{reduction, members}]),
      OpenNumber(number, fmt::format("{} {}", kNames[static_cast<size_t>(members)], reduction),
                 std::move(ranks), of_stage ? SumsOf(plan_.reduction) : SumAlgorithm::kOrdered));
  return {};
}

Status RankGroups::OpenLanes() {
  const ContextParallel& context = plan_.batch.context;
  if (!context.shared() || context.method == ContextMethod::kRing) return {};
  static constexpr std::string_view kNames[] = {"attention of Forward", "attention of backward"};
  const auto first = 3 * static_cast<int>(plan_.reductions.size());
  for (int lane = 0; lane < kNumKvLanes; ++lane) {
    const auto at = static_cast<size_t>(lane);
    ASSIGN_OR_RETURN(lanes_[at].group,
                     OpenNumber(first + lane, std::string(kNames[at]),
                                plan_.mesh.GroupOf(Axis::kCp, self_), SumAlgorithm::kOrdered));
  }
  return {};
}

Result<std::unique_ptr<Group>> RankGroups::OpenNumber(int number, std::string name,
                                                      std::vector<Rank> ranks, SumAlgorithm sums) {
  GroupSpec spec{.id = GroupId(static_cast<uint32_t>(number)),
                 .name = std::move(name),
                 .ranks = std::move(ranks),
                 .self = self_,
                 .deadline_ms = deadlines_.end_ms,
                 .tell_ms = deadlines_.tell_ms,
                 .sums = sums};
  for (const Rank rank : spec.ranks) spec.hosts.push_back(hosts_[static_cast<size_t>(rank.value)]);
  return groups_.Open(std::move(spec), static_cast<uint16_t>(kFirstGroupChannel + number));
}

void RankGroups::AtStep(bool begins) {
  for (LaneGroup& lane : lanes_) {
    if (lane.group == nullptr) continue;
    for (size_t kind = 0; kind < lane.counted.size(); ++kind) {
      const GroupTraffic& now = lane.group->traffic(static_cast<GroupOperationKind>(kind));
      if (!begins) {
        const GroupTraffic& then = lane.at_begin[kind];
        lane.counted[kind].num_operations += now.num_operations - then.num_operations;
        lane.counted[kind].sent_bytes += now.sent_bytes - then.sent_bytes;
      }
      lane.at_begin[kind] = now;
    }
  }
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

SiblingGroups RankGroups::SiblingsOf(StageId stage) const {
  for (size_t i = 0; i < plan_.reductions.size(); ++i) {
    const GradientReduction& reduction = plan_.reductions[i];
    const bool has = std::ranges::find(reduction.stages, stage) != reduction.stages.end();
    if (reduction.weights != SharedWeights::kStage || !has) continue;
    const auto index = static_cast<int32_t>(i);
    SiblingGroups groups{.all = OfReduction(index),
                         .in_order = plan_.reduction != ReductionAlgorithm::kRing};
    if (plan_.num_owners() == 1) return groups;
    groups.owners = plan_.RepeatsShards() ? Find(index, Members::kOwners) : groups.all;
    groups.replicas = Find(index, Members::kReplicas);
    return groups;
  }
  return {};
}

std::vector<CommunicationVolume> RankGroups::Sent() const {
  std::vector<CommunicationVolume> rows;
  for (const auto& [key, group] : opened_) {
    const Axis axis = AxisOf(plan_.reductions[static_cast<size_t>(key.first)]);
    for (int i = 0; i < kNumGroupOperationKinds; ++i) {
      const auto kind = static_cast<GroupOperationKind>(i);
      const GroupTraffic& traffic = group->traffic(kind);
      AddVolume(rows, {axis, GroupOperationName(kind), traffic.num_operations, traffic.sent_bytes});
    }
  }
  for (const LaneGroup& lane : lanes_) {
    for (int i = 0; i < kNumGroupOperationKinds; ++i) {
      const GroupTraffic& traffic = lane.counted[static_cast<size_t>(i)];
      AddVolume(rows, {Axis::kCp, GroupOperationName(static_cast<GroupOperationKind>(i)),
                       traffic.num_operations, traffic.sent_bytes});
    }
  }
  return rows;
}

Group* RankGroups::Find(int32_t reduction, Members members) const {
  const auto group = opened_.find({reduction, members});
  return group == opened_.end() ? nullptr : group->second.get();
}

Group* RankGroups::OfReduction(int32_t reduction) const { return Find(reduction, Members::kAll); }

}  // namespace troupe
