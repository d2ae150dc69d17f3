#include "actors/plan/communication_volume.h"

#include <algorithm>

#include "actors/plan/job_plan.h"
#include "runtime/base/all_reduce_parts.h"

namespace troupe {

Axis AxisOf(const GradientReduction& reduction) {
  return reduction.weights == SharedWeights::kStage ? Axis::kDp : Axis::kPp;
}

void AddVolume(std::vector<CommunicationVolume>& rows, const CommunicationVolume& more) {
  if (more.count == 0 && more.bytes == 0) return;
  const auto row = std::ranges::find_if(rows, [&more](const CommunicationVolume& r) {
    return r.axis == more.axis && r.operation == more.operation;
  });
  if (row == rows.end()) return rows.push_back(more);
  row->count += more.count;
  row->bytes += more.bytes;
}

std::vector<CommunicationVolume> CommunicationOf(const JobPlan& plan, Rank rank) {
  std::vector<CommunicationVolume> rows;
  const PipelineRank place = plan.PipelineRankOf(rank);
  const int64_t boundary = BoundaryBytes(plan.batch, plan.config.hidden_size, plan.widths);
  for (const InputKind kind : {InputKind::kActivation, InputKind::kGradient}) {
    CommunicationVolume row{.axis = Axis::kPp, .operation = InputKindName(kind)};
    for (const Action& action : plan.train.ActionsOf(place)) {
      const auto output = OutputOf(plan.train, action);
      if (!output || !output->crosses_ranks() || output->kind != kind) continue;
      ++row.count;
      row.bytes += boundary;
    }
    AddVolume(rows, row);
  }
  for (const Axis axis : {Axis::kPp, Axis::kDp}) {
    for (const GradientReduction& reduction : plan.reductions) {
      if (AxisOf(reduction) != axis || StagesOn(plan.train, reduction, place).empty()) continue;
      const std::vector<Rank> members = plan.MembersOf(reduction, rank);
      if (members.size() < 2) continue;
      const AllReduceParts parts = DivideAllReduce(
          plan.ElementsOf(reduction), plan.widths.master_bytes, static_cast<int>(members.size()));
      const auto self = static_cast<int>(std::ranges::find(members, rank) - members.begin());
      AddVolume(rows, {.axis = axis,
                       .operation = "all-reduce",
                       .count = 1,
                       .bytes = parts.ElementsSentBy(self) * plan.widths.master_bytes});
    }
  }
  return rows;
}

}  // namespace troupe
