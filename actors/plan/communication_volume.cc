#include "actors/plan/communication_volume.h"

#include <algorithm>

#include "actors/plan/gradient_piece.h"
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

UnitGathers GathersOf(std::span<const Action> actions, StageId stage, bool reshard_after_forward) {
  UnitGathers gathers;
  int64_t kept_by = 0;  // microbatches between their Forward and their backward
  for (const Action& action : actions) {
    if (action.stage != stage) continue;
    const bool is_backward =
        action.kind == ActionKind::kBackward || action.kind == ActionKind::kBackwardInput;
    if (action.kind == ActionKind::kForward) {
      gathers.forward += reshard_after_forward || kept_by == 0 ? 1 : 0;
      ++kept_by;
    } else if (is_backward) {
      gathers.backward += reshard_after_forward ? 1 : 0;
      --kept_by;
    }
  }
  return gathers;
}

namespace {

// What a rank's stage sends along dp.
class StageVolume {
 public:
  StageVolume(const JobPlan& plan, Rank rank, StageId stage)
      : plan_(plan),
        rank_(rank),
        stage_(stage),
        layout_(plan.stages[static_cast<size_t>(stage.value)]),
        each_microbatch_(plan.batch.grad_reduce == GradReduce::kMicrobatch),
        owned_(OwnedByParameter(plan.table, layout_, plan.ShardPlaceOf(rank))) {}

  void AddTo(std::vector<CommunicationVolume>& rows) const {
    for (const Sum& sum : Sums()) {
      const CommunicationVolume volume = plan_.num_owners() > 1 ? Scatter(sum) : AllReduce(sum);
      AddVolume(rows, volume);
    }
    if (plan_.num_owners() == 1) return;
    const UnitGathers gathers = GathersOf(plan_.train.ActionsOf(plan_.PipelineRankOf(rank_)),
                                          stage_, plan_.zero.reshard_after_forward);
    for (const std::vector<int>& row : ShardRowsOf(plan_.table, layout_)) {
      AddVolume(rows, plan_.GathersUnits() ? Shards(row, gathers) : AllGather(row));
    }
  }

 private:
  // Gradients that are reduced together, so often in a step.
  struct Sum {
    int64_t elements = 0;
    int64_t owned = 0;
    int64_t count = 1;
  };

  int64_t OwnedOf(std::span<const int> parameters) const {
    int64_t elements = 0;
    for (const int index : parameters) elements += owned_[static_cast<size_t>(index)];
    return elements;
  }
  int64_t ElementsOf(std::span<const int> parameters) const {
    int64_t elements = 0;
    for (const int index : parameters) elements += plan_.table[index].num_elements();
    return elements;
  }
  // Units of the stage that read the row's first parameter.
  int UsesOf(std::span<const int> row) const {
    const bool both = plan_.table.tied() && layout_.has_embedding() && layout_.has_head();
    return both && row.front() == plan_.table.embedding_index() ? 2 : 1;
  }

  std::vector<Sum> Sums() const {
    std::vector<Sum> sums;
    if (each_microbatch_) {
      for (const GradientPiece& piece : GradientPiecesOf(plan_.table, layout_, plan_.halves)) {
        sums.push_back(
            {piece.num_elements, OwnedOf(piece.parameters), plan_.batch.num_microbatches});
      }
    } else if (plan_.num_owners() == 1) {
      const int64_t elements = plan_.bucket_bytes / plan_.widths.master_bytes;
      for (const GradientRun& run : GradientRunsOf(plan_.table, layout_, elements)) {
        sums.push_back({.elements = run.num_elements});
      }
    } else {
      for (const std::vector<int>& row : ShardRowsOf(plan_.table, layout_)) {
        sums.push_back({ElementsOf(row), OwnedOf(row), UsesOf(row)});
      }
    }
    return sums;
  }

  CommunicationVolume AllReduce(const Sum& sum) const {
    const std::vector<Rank> members = plan_.mesh.GroupOf(Axis::kDp, rank_);
    const AllReduceParts parts =
        DivideAllReduce(sum.elements, plan_.widths.master_bytes, static_cast<int>(members.size()));
    const auto self = static_cast<int>(std::ranges::find(members, rank_) - members.begin());
    return {Axis::kDp, "all-reduce", sum.count,
            sum.count * parts.ElementsSentBy(self) * plan_.widths.master_bytes};
  }
  // To the others their parts.
  CommunicationVolume Scatter(const Sum& sum) const {
    return {Axis::kDp, "reduce-scatter", sum.count,
            sum.count * (sum.elements - sum.owned) * plan_.widths.master_bytes};
  }
  // To all others its own part.
  CommunicationVolume AllGather(std::span<const int> row) const {
    return {Axis::kDp, "all-gather", 1,
            OwnedOf(row) * (plan_.num_owners() - 1) * plan_.widths.compute_bytes};
  }
  CommunicationVolume Shards(std::span<const int> row, const UnitGathers& gathers) const {
    const int64_t owned = OwnedOf(row);
    if (owned == 0) return {};
    const int64_t count = GathersOfRow(row, gathers) * (plan_.num_owners() - 1);
    return {Axis::kDp, "shard", count, count * owned * plan_.widths.compute_bytes};
  }
  // By each unit that reads it; the embedding's backward reads no weights. What is kept is there
  // for both uses of a tied weight.
  int64_t GathersOfRow(std::span<const int> row, const UnitGathers& gathers) const {
    const bool of_embedding =
        layout_.has_embedding() && row.front() == plan_.table.embedding_index();
    if (!plan_.zero.reshard_after_forward) return gathers.forward;
    if (!of_embedding) return gathers.forward + gathers.backward;
    return UsesOf(row) * gathers.forward + (UsesOf(row) - 1) * gathers.backward;
  }

  const JobPlan& plan_;
  const Rank rank_;
  const StageId stage_;
  const StageLayout& layout_;
  const bool each_microbatch_;
  const std::vector<int64_t> owned_;  // by table index
};

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
      if (reduction.weights == SharedWeights::kStage) {
        StageVolume(plan, rank, reduction.stages.front()).AddTo(rows);
        continue;
      }
      const AllReduceParts parts =
          DivideAllReduce(plan.ElementsOf(reduction, plan.ShardPlaceOf(rank)),
                          plan.widths.master_bytes, static_cast<int>(members.size()));
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
