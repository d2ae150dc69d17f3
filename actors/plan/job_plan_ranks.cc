// What each rank of a plan holds, shares and needs.
#include <algorithm>
#include <utility>

#include "actors/plan/context_volume.h"
#include "actors/plan/gradient_piece.h"
#include "actors/plan/job_plan.h"
#include "actors/schedule/rank_list.h"
#include "runtime/base/slot_stride.h"

namespace troupe {

StageShape JobPlan::ShapeOf(StageId stage) const {
  StageShape shape{.model = table.model(),
                   .layout = stages[static_cast<size_t>(stage.value)],
                   .batch = batch,
                   .widths = widths,
                   .halves = halves,
                   .weight_parts = train.HasWeightParts(),
                   .recompute = recompute,
                   .num_threads = num_threads,
                   .open_actions = policy.open_actions};
  for (const TrainSchedule& other : others) {
    shape.open_actions = std::max(shape.open_actions, other.policy.open_actions);
    shape.weight_parts = shape.weight_parts || other.schedule.HasWeightParts();
  }
  // No two of one lane are open at once.
  shape.open_actions = std::min(shape.open_actions, RankList::kLanesPerStage);
  if (train.num_directions == 2) {
    shape.batch.num_microbatches = train.MicrobatchesPerDirection();
    shape.batch.gradient_groups = 1;
  }
  if (batch.weight_replicas() > 1) {  // its own (CheckGroups)
    shape.batch.gradient_groups =
        batch.grad_reduce == GradReduce::kStep ? 1 : batch.num_microbatches;
  }
  shape.zero = zero;
  shape.bucket_bytes = bucket_bytes;
  if (num_owners() == 1) shape.zero.stage = 0;
  shape.unshards = std::ranges::any_of(
      train.ActionsOf(train.RankOf(stage)),
      [stage](const Action& a) { return a.kind == ActionKind::kUnshard && a.stage == stage; });
  return shape;
}

int64_t JobPlan::ElementsOf(const GradientReduction& reduction, const ShardPlace& shards) const {
  const StageLayout& copy = stages[static_cast<size_t>(reduction.stages.front().value)];
  switch (reduction.weights) {
    case SharedWeights::kStage:
      return GradientElements(table, copy);
    case SharedWeights::kTied:
      return OwnedByParameter(table, copy, shards)[static_cast<size_t>(table.embedding_index())];
    case SharedWeights::kReplica:
      break;
  }
  int64_t elements = 0;
  for (const int index : ParametersOf(table, copy)) elements += table[index].num_elements();
  return elements;
}

namespace {

// Elements of what is reduced at once of a microbatch.
int64_t LargestPiece(const JobPlan& plan, const GradientReduction& reduction) {
  const StageId stage = reduction.stages.front();
  const ShardPlace place{.num_owners = plan.num_owners(),
                         .persist_elements = plan.zero.persist_elements};
  const StageLayout& layout = plan.stages[static_cast<size_t>(stage.value)];
  int64_t most = 0;
  for (const GradientPiece& piece : GradientPiecesOf(plan.table, layout, plan.halves, place)) {
    most = std::max(most, piece.num_elements);
  }
  return most;
}

}  // namespace

int64_t JobPlan::ReductionSlotBytes() const {
  int64_t most = 0;  // elements
  for (const GradientReduction& reduction : reductions) {
    const bool in_pieces =
        reduction.weights == SharedWeights::kStage && batch.grad_reduce == GradReduce::kMicrobatch;
    // Where weights come back after an update, a row of them is no smaller than its pieces.
    most = std::max(most, in_pieces && !GathersAfterUpdate() ? LargestPiece(*this, reduction)
                                                             : ElementsOf(reduction));
  }
  const int64_t width =
      GathersAfterUpdate() ? std::max(widths.grad_bytes, widths.compute_bytes) : widths.grad_bytes;
  return std::clamp<int64_t>(most * width, 1, kReductionBlockBytes);
}

int64_t JobPlan::ShardSlotBytes() const {
  int64_t most = 1;  // elements of a run: an even share and less than a leaf
  for (const StageLayout& stage : stages) {
    const ShardPlace place{.num_owners = num_owners(), .persist_elements = zero.persist_elements};
    for (const ParameterRow& row : ShardRowsOf(table, stage, place)) {
      if (row.persists) continue;
      int64_t elements = 0;
      for (const int index : row.parameters) elements += table[index].num_elements();
      most = std::max(most, std::min(elements, elements / num_owners() + kShardLeafElements));
    }
  }
  return std::min(most * widths.compute_bytes, kShardBlockBytes);
}

std::vector<Rank> JobPlan::MembersOf(const GradientReduction& reduction, Rank rank) const {
  std::vector<Rank> members;
  if (reduction.weights == SharedWeights::kStage) {
    for (const Rank pipeline : mesh.ReplicasOf(rank)) {
      for (const StageId stage : reduction.stages) {
        members.push_back(mesh.InPipelineOf(pipeline, train.RankOf(stage)));
      }
    }
    return members;
  }
  for (const PipelineRank place : RanksOf(train, reduction)) {
    members.push_back(mesh.InPipelineOf(rank, place));
  }
  return members;
}

int JobPlan::num_owners() const {
  if (zero.stage == 0) return 1;
  return zero.group > 0 ? zero.group : mesh.num_replicas();
}

int JobPlan::num_shard_replicas() const {
  return mesh.num_replicas() / num_owners() * train.num_directions;
}

ShardPlace JobPlan::ShardPlaceOf(Rank rank, StageId stage) const {
  const int pipeline = mesh.ReplicaOf(rank);
  const int owners = num_owners();
  return {.owner = pipeline % owners,
          .num_owners = owners,
          .replica = pipeline / owners * train.num_directions + train.DirectionOf(stage),
          .num_replicas = num_shard_replicas(),
          .num_directions = train.num_directions,
          .persist_elements = zero.persist_elements};
}

std::vector<Rank> JobPlan::OwnersOf(Rank rank) const {
  const std::vector<Rank> pipelines = mesh.ReplicasOf(rank);
  const int owners = num_owners();
  const int first = mesh.ReplicaOf(rank) / owners * owners;
  return {pipelines.begin() + first, pipelines.begin() + first + owners};
}

std::vector<Rank> JobPlan::ShardReplicasOf(Rank rank, StageId stage) const {
  const std::vector<Rank> pipelines = mesh.ReplicasOf(rank);
  const int owners = num_owners();
  std::vector<Rank> replicas;
  for (int pipeline = mesh.ReplicaOf(rank) % owners; pipeline < mesh.num_replicas();
       pipeline += owners) {
    for (int copy = OwnerOf(train, stage).value; copy < train.num_stages;
         copy += train.StagesPerDirection()) {
      const Rank of = pipelines[static_cast<size_t>(pipeline)];
      replicas.push_back(mesh.InPipelineOf(of, train.RankOf(StageId(copy))));
    }
  }
  return replicas;
}

bool JobPlan::Owns(Rank rank, StageId stage) const {
  return ShardPlaceOf(rank, stage).replica == 0;
}

bool JobPlan::Exports(Rank rank, StageId stage) const {
  return OwnerOf(train, stage) == stage && mesh.ReplicaOf(rank) == 0;
}

std::vector<PipelineRank> JobPlan::ExportedBy() const {
  std::vector<PipelineRank> places(static_cast<size_t>(table.size()));
  for (int stage = 0; stage < train.StagesPerDirection(); ++stage) {
    for (const int index : OwnedParametersOf(table, stages[static_cast<size_t>(stage)])) {
      places[static_cast<size_t>(index)] = train.RankOf(StageId(stage));
    }
  }
  return places;
}

namespace {

void Add(const MemoryPrediction& more, MemoryPrediction& sum) {
  for (size_t tag = 0; tag < sum.size(); ++tag) sum[tag] += more[tag];
}

// Slots of gradients and shards that the rank shares with others, whole pages.
int64_t SharedBytesOf(const JobPlan& plan, Rank rank) {
  int64_t peers = 0;  // of all groups
  for (const GradientReduction& reduction : plan.reductions) {
    const std::vector<Rank> members = plan.MembersOf(reduction, rank);
    if (std::ranges::find(members, rank) == members.end()) continue;
    peers += static_cast<int64_t>(members.size()) - 1;
    if (reduction.weights != SharedWeights::kStage || !plan.RepeatsShards()) continue;
    peers += plan.num_owners() - 1 + plan.num_shard_replicas() - 1;
  }
  // Received and sent.
  int64_t bytes = 2 * peers * kReductionSlots * SlotStrideBytes(plan.ReductionSlotBytes());
  if (plan.batch.weight_replicas() > 1) bytes += kLendingPageBytes;
  if (!plan.GathersUnits()) return bytes;
  // Received; what is sent leaves the shard itself.
  const int64_t others = plan.num_owners() - 1;
  return bytes + others * kShardSlots * SlotStrideBytes(plan.ShardSlotBytes());
}

}  // namespace

// A rank needs what its stages need, and slots for what comes from other ranks.
MemoryPrediction JobPlan::MemoryOf(Rank rank, VectorIsa isa) const {
  MemoryPrediction sum{};
  const PipelineRank place = PipelineRankOf(rank);
  const std::vector<StageId> held = train.StagesOf(place);
  std::vector<StageShape> shapes;
  for (const StageId stage : held) {
    PredictionInputs inputs{
        .shape = ShapeOf(stage),
        .shards = ShardPlaceOf(rank, stage),
        .peak_microbatches = peak_microbatches[static_cast<size_t>(stage.value)],
        .isa = isa};
    if (stage == held.front()) {
      for (const Channel& channel : channels) {
        if (channel.to == place) inputs.receive_slots += channel.slots;
        if (channel.from == place) inputs.outputs_in_flight += kOutputBuffers;
      }
      int hand_overs = HandOversOn(train, policy, place);
      for (const TrainSchedule& other : others) {
        hand_overs = std::max(hand_overs, HandOversOn(other.schedule, other.policy, place));
      }
      inputs.outputs_in_flight += hand_overs;
      inputs.shared_bytes = SharedBytesOf(*this, rank) + ContextSlotBytes(*this);
    }
    Add(PredictMemory(table, inputs), sum);
    shapes.push_back(std::move(inputs.shape));
  }
  if (GathersUnits()) Add(PredictGatheredUnits(table, shapes, isa), sum);
  return sum;
}

}  // namespace troupe
