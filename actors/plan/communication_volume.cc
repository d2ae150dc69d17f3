#include "actors/plan/communication_volume.h"

#include <algorithm>
#include <optional>

#include "actors/plan/context_volume.h"
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
  int64_t kept_by = 0;    // microbatches between their Forward and their backward
  bool by_entry = false;  // between UNSHARD and RESHARD
  const auto present = [&] { return by_entry || (!reshard_after_forward && kept_by > 0); };
  for (const Action& action : actions) {
    if (action.stage != stage) continue;
    switch (action.kind) {
      case ActionKind::kForward:
        gathers.forward += present() ? 0 : 1;
        ++kept_by;
        break;
      case ActionKind::kBackward:
      case ActionKind::kBackwardInput:
        gathers.backward += present() ? 0 : 1;
        --kept_by;
        break;
      case ActionKind::kUnshard:
        gathers.entries += present() ? 0 : 1;
        by_entry = true;
        break;
      case ActionKind::kReshard:
        by_entry = false;
        break;
      default:
        break;
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
        actions_(plan.train.ActionsOf(plan.PipelineRankOf(rank))),
        stage_(stage),
        layout_(plan.stages[static_cast<size_t>(stage.value)]),
        place_(plan.ShardPlaceOf(rank, stage)),
        member_(MemberOf(place_)),
        num_members_(place_.num_owners * place_.num_replicas),
        owned_(OwnedByParameter(plan.table, layout_, place_)) {}

  std::vector<CommunicationVolume> Rows() {
    for (const Sum& sum : Sums()) {
      sum.owned ? AddShards(sum, *sum.owned) : AddWhole(sum);
    }
    const UnitGathers gathers = GathersOf(actions_, stage_, plan_.zero.reshard_after_forward);
    for (const ParameterRow& row : ShardRowsOf(plan_.table, layout_, place_)) {
      if (row.persists || place_.num_owners == 1) continue;
      const int64_t owned = OwnedOf(row.parameters);
      plan_.GathersUnits() ? AddGathers(row.parameters, owned, gathers) : AddUpdate(owned);
    }
    return std::move(rows_);
  }

 private:
  // Gradients that are added up together, so often in a step: whole, or each owner's run of them.
  struct Sum {
    int64_t elements = 0;
    std::optional<int64_t> owned{};  // this owner's run; nothing: whole
    int64_t times = 1;
  };

  int64_t OwnedOf(std::span<const int> parameters) const {
    int64_t elements = 0;
    for (const int index : parameters) elements += owned_[static_cast<size_t>(index)];
    return elements;
  }
  void Add(std::string_view operation, int64_t count, int64_t bytes) {
    AddVolume(rows_, {Axis::kDp, operation, count, bytes});
  }
  // Of gradients: `elements` each time.
  void AddSum(std::string_view operation, const Sum& sum, int64_t elements) {
    Add(operation, sum.times, sum.times * elements * plan_.widths.grad_bytes);
  }

  // Units of the stage that read the row's first parameter.
  int UsesOf(std::span<const int> row) const {
    const bool both = plan_.table.tied() && layout_.has_embedding() && layout_.has_head();
    return both && row.front() == plan_.table.embedding_index() ? 2 : 1;
  }

  std::vector<Sum> Sums() const {
    std::vector<Sum> sums;
    const bool shares = place_.num_owners > 1;
    if (plan_.batch.grad_reduce == GradReduce::kMicrobatch) {
      for (const GradientPiece& piece :
           GradientPiecesOf(plan_.table, layout_, plan_.halves, place_)) {
        Sum& sum = sums.emplace_back(Sum{.elements = piece.num_elements});
        sum.times = plan_.batch.num_microbatches;
        if (shares && !piece.persists) sum.owned = OwnedOf(piece.parameters);
      }
    } else if (!shares) {
      const int64_t elements = plan_.bucket_bytes / plan_.widths.grad_bytes;
      for (const GradientRun& run : GradientRunsOf(plan_.table, layout_, elements)) {
        sums.push_back({.elements = run.num_elements});
      }
    } else {
      for (const ParameterRow& row : ShardRowsOf(plan_.table, layout_, place_)) {
        Sum& sum = sums.emplace_back();
        for (const int index : row.parameters) sum.elements += plan_.table[index].num_elements();
        if (!row.persists) sum.owned = OwnedOf(row.parameters);
        sum.times = UsesOf(row.parameters);
      }
    }
    return sums;
  }

  // Everyone has the sum.
  void AddWhole(const Sum& sum) {
    switch (plan_.reduction) {
      case ReductionAlgorithm::kOrdered: {
        const AllReduceParts parts =
            DivideAllReduce(sum.elements, plan_.widths.grad_bytes, num_members_);
        return AddSum("all-reduce", sum, parts.ElementsSentBy(member_));
      }
      case ReductionAlgorithm::kRing:
        return AddSum("all-reduce", sum, InRing(sum.elements, num_members_, member_));
      case ReductionAlgorithm::kChain:
        AddSum("reduce", sum, member_ + 1 < num_members_ ? sum.elements : 0);
        AddSum("broadcast", sum, member_ > 0 ? sum.elements : 0);
    }
  }
  static int64_t InRing(int64_t elements, int num_members, int member) {
    return DivideRing(elements, num_members).ElementsSentInRingBy(member);
  }

  // Every owner has the sum of its run, and so have all replicas of it.
  void AddShards(const Sum& sum, int64_t own) {
    const int replicas = place_.num_replicas;
    if (replicas == 1) {
      AddSum("reduce-scatter", sum, sum.elements - own);
    } else if (plan_.reduction == ReductionAlgorithm::kRing) {
      AddSum("reduce-scatter", sum, sum.elements - own);
      AddSum("all-reduce", sum, InRing(own, replicas, place_.replica));
    } else {
      const int64_t share = ReplicaCounts(own, replicas)[static_cast<size_t>(place_.replica)];
      AddSum("reduce-scatter", sum, sum.elements - share);
      AddSum("all-gather", sum, (replicas - 1) * share);
    }
  }

  // Its own part of new weights to all others.
  void AddUpdate(int64_t owned) {
    Add("all-gather", 1, owned * (place_.num_owners - 1) * plan_.widths.compute_bytes);
  }
  void AddGathers(std::span<const int> row, int64_t owned, const UnitGathers& gathers) {
    if (owned == 0) return;
    const int64_t count = GathersOfRow(row, gathers) * (place_.num_owners - 1);
    Add("shard", count, count * owned * plan_.widths.compute_bytes);
  }
  // By each unit that reads it; backwards read weights of layers alone. What is kept is there for
  // both uses of a tied weight.
  int64_t GathersOfRow(std::span<const int> row, const UnitGathers& gathers) const {
    if (!plan_.zero.reshard_after_forward) return gathers.entries + gathers.forward;
    const bool of_layer = plan_.table[row.front()].layer >= 0;
    return gathers.entries + UsesOf(row) * gathers.forward + (of_layer ? gathers.backward : 0);
  }

  const JobPlan& plan_;
  const std::span<const Action> actions_;
  const StageId stage_;
  const StageLayout& layout_;
  const ShardPlace place_;
  const int member_;  // among all that add up the stage's gradients
  const int num_members_;
  const std::vector<int64_t> owned_;  // by table index
  std::vector<CommunicationVolume> rows_{};
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
  for (const CommunicationVolume& row : ContextVolumeOf(plan, rank)) AddVolume(rows, row);
  for (const Axis axis : {Axis::kPp, Axis::kDp}) {
    for (const GradientReduction& reduction : plan.reductions) {
      if (AxisOf(reduction) != axis || StagesOn(plan.train, reduction, place).empty()) continue;
      const StageId own = StagesOn(plan.train, reduction, place).front();
      const std::vector<Rank> members = plan.MembersOf(reduction, rank);
      if (members.size() < 2) continue;
      if (reduction.weights == SharedWeights::kStage) {
        for (const CommunicationVolume& row : StageVolume(plan, rank, own).Rows()) {
          AddVolume(rows, row);
        }
        continue;
      }
      const AllReduceParts parts =
          DivideAllReduce(plan.ElementsOf(reduction, plan.ShardPlaceOf(rank, own)),
                          plan.widths.grad_bytes, static_cast<int>(members.size()));
      const auto self = static_cast<int>(std::ranges::find(members, rank) - members.begin());
      AddVolume(rows, {.axis = axis,
                       .operation = "all-reduce",
                       .count = 1,
                       .bytes = parts.ElementsSentBy(self) * plan.widths.grad_bytes});
    }
  }
  return rows;
}

}  // namespace troupe
