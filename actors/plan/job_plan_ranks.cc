// What each rank of a plan holds, shares and needs.
#include <algorithm>
#include <array>
#include <utility>

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
                   .num_threads = num_threads,
                   .open_actions = policy.open_actions};
  for (const TrainSchedule& other : others) {
    shape.open_actions = std::max(shape.open_actions, other.policy.open_actions);
  }
  // No two of one lane are open at once.
  shape.open_actions = std::min(shape.open_actions, RankList::kLanesPerStage);
  if (train.num_directions == 2) {
    shape.batch.num_microbatches = train.MicrobatchesPerDirection();
    shape.batch.gradient_groups = 1;
  }
  if (batch.data_parallel > 1) {  // its own (CheckGroups)
    shape.batch.gradient_groups =
        batch.grad_reduce == GradReduce::kStep ? 1 : batch.num_microbatches;
  }
  shape.zero = zero;
  shape.bucket_bytes = bucket_bytes;
  if (num_owners() == 1) shape.zero.stage = 0;
  return shape;
}

int64_t JobPlan::ElementsOf(const GradientReduction& reduction, const ShardPlace& shards) const {
  const StageLayout& copy = stages[static_cast<size_t>(reduction.stages.front().value)];
  switch (reduction.weights) {
    case SharedWeights::kStage:
      return GradientElements(table, copy);
    case SharedWeights::kTied:
      return ShardsOf(table, std::array{table.embedding_index()}, shards).front().num_elements;
    case SharedWeights::kReplica:
      break;
  }
  int64_t elements = 0;
  for (const int index : ParametersOf(table, copy)) elements += table[index].num_elements();
  return elements;
}

int64_t JobPlan::ReductionSlotBytes() const {
  int64_t most = 0;  // elements
  for (const GradientReduction& reduction : reductions) {
    const bool in_pieces =
        reduction.weights == SharedWeights::kStage && batch.grad_reduce == GradReduce::kMicrobatch;
    const StageLayout& stage = stages[static_cast<size_t>(reduction.stages.front().value)];
    // Where weights come back after an update, a row of them is no smaller than its pieces.
    most = std::max(most, in_pieces && !GathersAfterUpdate() ? BucketElements(table, stage, halves)
                                                             : ElementsOf(reduction));
  }
  return std::clamp<int64_t>(most * widths.master_bytes, 1, kReductionBlockBytes);
}

int64_t JobPlan::ShardSlotBytes() const {
  int64_t most = 1;  // elements of a run: an even share and less than a leaf
  for (const StageLayout& stage : stages) {
    for (const std::vector<int>& row : ShardRowsOf(table, stage)) {
      int64_t elements = 0;
      for (const int index : row) elements += table[index].num_elements();
      most = std::max(most, std::min(elements, elements / num_owners() + kShardLeafElements));
    }
  }
  return std::min(most * widths.compute_bytes, kShardBlockBytes);
}

std::vector<Rank> JobPlan::MembersOf(const GradientReduction& reduction, Rank rank) const {
  std::vector<Rank> members;
  for (const PipelineRank place : RanksOf(train, reduction)) {
    members.push_back(mesh.InPipelineOf(rank, place));
  }
  if (reduction.weights == SharedWeights::kStage) return mesh.GroupOf(Axis::kDp, members.front());
  return members;
}

ShardPlace JobPlan::ShardPlaceOf(Rank rank) const {
  if (num_owners() == 1) return {};
  return {.owner = mesh.Coordinate(rank, Axis::kDp), .num_owners = num_owners()};
}

bool JobPlan::Owns(Rank rank, StageId stage) const {
  const bool shares = ShardPlaceOf(rank).num_owners > 1;
  return OwnerOf(train, stage) == stage && (shares || mesh.Coordinate(rank, Axis::kDp) == 0);
}

bool JobPlan::Exports(Rank rank, StageId stage) const {
  return OwnerOf(train, stage) == stage && mesh.Coordinate(rank, Axis::kDp) == 0;
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
  int64_t bytes = 0;
  const int64_t block_bytes = SlotStrideBytes(plan.ReductionSlotBytes());
  for (const GradientReduction& reduction : plan.reductions) {
    const std::vector<Rank> members = plan.MembersOf(reduction, rank);
    if (!std::ranges::binary_search(members, rank)) continue;
    const auto peers = static_cast<int64_t>(members.size()) - 1;
    bytes += 2 * peers * kReductionSlots * block_bytes;  // received and sent
  }
  if (plan.batch.data_parallel > 1) bytes += kLendingPageBytes;
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
        .shards = ShardPlaceOf(rank),
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
      inputs.shared_bytes = SharedBytesOf(*this, rank);
    }
    Add(PredictMemory(table, inputs), sum);
    shapes.push_back(std::move(inputs.shape));
  }
  if (GathersUnits()) Add(PredictGatheredUnits(table, shapes, isa), sum);
  return sum;
}

}  // namespace troupe
