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

namespace {

// Of the rows of a stage: each rank sends others their parts of a row, and its own to all others.
void AddShardRows(const JobPlan& plan, const StageLayout& stage, const ShardPlace& place,
                  std::vector<CommunicationVolume>& rows) {
  const NumberWidths& widths = plan.widths;
  const int64_t weight_bytes =
      widths.has_compute_copy() ? widths.compute_bytes : widths.master_bytes;
  const bool both_uses = plan.table.tied() && stage.has_embedding() && stage.has_head();
  for (const std::vector<int>& row : ShardRowsOf(plan.table, stage)) {
    int64_t own = 0;
    int64_t others = 0;
    for (const ParameterShard& shard : ShardsOf(plan.table, row, place)) {
      own += shard.num_elements;
      others += shard.cut_elements - shard.num_elements;
    }
    const int uses = both_uses && row.front() == plan.table.embedding_index() ? 2 : 1;
    AddVolume(rows, {.axis = Axis::kDp,
                     .operation = "reduce-scatter",
                     .count = uses,
                     .bytes = uses * others * widths.master_bytes});
    AddVolume(rows, {.axis = Axis::kDp,
                     .operation = "all-gather",
                     .count = 1,
                     .bytes = own * (place.num_owners - 1) * weight_bytes});
  }
}

}  // namespace

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
      const ShardPlace shards = plan.ShardPlaceOf(rank);
      if (reduction.weights == SharedWeights::kStage && shards.num_owners > 1) {
        AddShardRows(plan, plan.stages[static_cast<size_t>(reduction.stages.front().value)], shards,
                     rows);
        continue;
      }
      const AllReduceParts parts =
          DivideAllReduce(plan.ElementsOf(reduction, shards), plan.widths.master_bytes,
                          static_cast<int>(members.size()));
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
