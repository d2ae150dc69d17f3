#include "actors/plan/job_plan.h"

#include <algorithm>
#include <cmath>

#include "actors/plan/cost_model.h"
#include "actors/plan/train_schedule.h"
#include "actors/schedule/generators.h"
#include "runtime/base/slot_stride.h"

namespace troupe {
namespace {

int64_t Nanoseconds(double flops) { return static_cast<int64_t>(std::llround(flops)); }

CostModel CostsOf(const JobPlan& plan) {
  CostModel costs;
  // One nanosecond is a thousand operations a token: enough digits, no overflow.
  constexpr double kUnit = 1e-3;
  for (const StageLayout& stage : plan.stages) {
    TokenFlops flops;
    for (int i = 0; i < stage.num_layers; ++i) {
      flops += LayerFlops(plan.config, plan.batch.seq_len);
    }
    if (stage.has_embedding()) flops += EmbeddingFlops(plan.config);
    if (stage.has_head()) flops += HeadFlops(plan.config);
    const double tokens = static_cast<double>(plan.batch.tokens_per_microbatch()) * kUnit;
    costs.stages.push_back({Nanoseconds(flops.forward * tokens),
                            Nanoseconds(flops.backward_input * tokens),
                            Nanoseconds(flops.backward_weight * tokens)});
  }
  return costs;
}

// Every exchange between two ranks is a gradient to the leader and a sum back.
std::vector<SumChannel> SumChannelsOf(const JobPlan& plan) {
  std::vector<SumChannel> channels;
  const auto add = [&](Rank from, Rank to, int64_t num_bytes) {
    auto found = std::ranges::find_if(
        channels, [&](const SumChannel& c) { return c.from == from && c.to == to; });
    if (found == channels.end()) found = channels.insert(found, {.from = from, .to = to});
    ++found->slots;
    found->slot_bytes = std::max(found->slot_bytes, num_bytes);
  };
  for (const GradientExchange& exchange : plan.exchanges) {
    const Rank leader = plan.train.RankOf(exchange.leader);
    const Rank follower = plan.train.RankOf(exchange.follower);
    if (leader == follower) continue;
    const int64_t num_bytes =
        plan.SharedElements(exchange.leader, exchange.weights) * plan.widths.master_bytes;
    add(follower, leader, num_bytes);
    add(leader, follower, num_bytes);
  }
  return channels;
}

bool HasHalves(const Schedule& schedule) {
  return std::ranges::any_of(schedule.ranks, [](const std::vector<Action>& actions) {
    return std::ranges::any_of(
        actions, [](const Action& action) { return action.kind == ActionKind::kBackwardInput; });
  });
}

// What the sums of a step need of its groups (DESIGN: two levels of summation).
Status CheckGroups(const JobPlan& plan) {
  const int groups = static_cast<int>(plan.batch.gradient_groups);
  if (plan.train.num_directions == 2 && groups != 2) {
    return MakeError(
        ErrorCode::kInvalidSpec,
        "batch.gradient_groups = {}: schedule {} sums each direction's microbatches by "
        "itself; use 2, or leave it out",
        groups, plan.train.name);
  }
  if (!plan.ascending && groups != 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "batch.gradient_groups = {}: schedule {} does not run microbatches in "
                     "ascending order, so it cannot close one group after another; use 1",
                     groups, plan.train.name);
  }
  return {};
}

// Forward actions of a step: every rank holds the whole schedule.
constexpr int64_t kActionsMax = int64_t{1} << 20;

}  // namespace

StageShape JobPlan::ShapeOf(StageId stage) const {
  StageShape shape{.config = config,
                   .layout = stages[static_cast<size_t>(stage.value)],
                   .batch = batch,
                   .widths = widths,
                   .halves = halves,
                   .num_threads = num_threads};
  if (train.num_directions == 2) {
    shape.batch.num_microbatches = train.MicrobatchesPerDirection();
    shape.batch.gradient_groups = 1;
  }
  return shape;
}

int64_t JobPlan::SharedElements(StageId stage, SharedWeights weights) const {
  if (weights == SharedWeights::kTied) return table[table.embedding_index()].num_elements();
  int64_t elements = 0;
  for (const int index : ParametersOf(table, stages[static_cast<size_t>(stage.value)])) {
    elements += table[index].num_elements();
  }
  return elements;
}

// A rank needs what its stages need, and slots for what comes from other ranks.
MemoryPrediction JobPlan::MemoryOf(Rank rank, VectorIsa isa) const {
  MemoryPrediction sum{};
  const std::vector<StageId> held = train.StagesOf(rank);
  for (const StageId stage : held) {
    PredictionInputs inputs{
        .shape = ShapeOf(stage),
        .peak_microbatches = peak_microbatches[static_cast<size_t>(stage.value)],
        .isa = isa};
    if (stage == held.front()) {
      for (const Channel& channel : channels) {
        if (channel.to == rank) inputs.receive_slots += channel.slots;
        if (channel.from == rank) inputs.outputs_in_flight += kOutputBuffers;
      }
      inputs.outputs_in_flight += HandOversOn(train, policy, rank);
      for (const SumChannel& channel : sum_channels) {
        if (channel.to != rank) continue;
        inputs.shared_bytes += channel.slots * SlotStrideBytes(channel.slot_bytes);
      }
    }
    const MemoryPrediction own = PredictMemory(table, inputs);
    for (size_t kind = 0; kind < sum.size(); ++kind) sum[kind] += own[kind];
  }
  return sum;
}

Result<JobPlan> MakeJobPlan(const proto::JobSpec& spec) {
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigOf(spec.model()));
  JobPlan plan{.config = config, .table = ParameterTable(config)};
  ASSIGN_OR_RETURN(plan.mesh, Mesh::FromSpec(spec.parallelism()));
  for (const Axis axis : {Axis::kDp, Axis::kCp, Axis::kTp, Axis::kEp}) {
    if (plan.mesh.extent(axis) > 1) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "parallelism.{} = {}: only the pipeline (pp) is built so far; use {}: 1",
                       AxisName(axis), plan.mesh.extent(axis), AxisName(axis));
    }
  }
  ASSIGN_OR_RETURN(plan.batch, BatchOf(spec.batch(), plan.mesh.extent(Axis::kDp)));
  ASSIGN_OR_RETURN(plan.widths,
                   WidthsOf(spec.train().has_dtype() ? spec.train().dtype() : "float32"));
  if (spec.resources().threads_per_worker() > 0) {
    plan.num_threads = spec.resources().threads_per_worker();
  }
  if (plan.batch.seq_len > config.max_position_embeddings) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "batch.seq_len = {} exceeds model.max_position_embeddings = {}: shorten the "
                     "one or raise the other",
                     plan.batch.seq_len, config.max_position_embeddings);
  }
  const int ranks = plan.mesh.extent(Axis::kPp);
  if (plan.batch.num_microbatches * ranks > kActionsMax) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "batch.global_batch_size = {} makes {} microbatches a step, too many for "
                     "parallelism.pp = {}: use at most {}, by a larger batch.micro_batch_size",
                     plan.batch.global_batch_size, plan.batch.num_microbatches, ranks,
                     kActionsMax / ranks);
  }
  ASSIGN_OR_RETURN(TrainSchedule train,
                   TrainScheduleOf(spec.parallelism(), ranks, plan.batch.num_microbatches));
  plan.train = std::move(train.schedule);
  plan.policy = train.policy;
  plan.ascending = train.ascending;
  plan.halves = HasHalves(plan.train);
  RETURN_IF_ERROR(CheckGroups(plan));
  const int chain = plan.train.StagesPerDirection();
  ASSIGN_OR_RETURN(plan.stages, PartitionStages(config, chain, plan.batch.seq_len, chain / ranks));
  for (int stage = chain; stage < plan.train.num_stages; ++stage) {
    plan.stages.push_back(plan.stages[static_cast<size_t>(stage - chain)]);
  }
  const std::vector<Rank> placement(plan.train.placement.begin(),
                                    plan.train.placement.begin() + chain);
  plan.evaluate = GenerateForwardOnly(ranks, placement, plan.batch.num_microbatches);
  plan.sample = GenerateForwardOnly(ranks, placement, 1);
  plan.channels = WithMoreSlots(ChannelsOf(plan.train, plan.policy), ChannelsOf(plan.evaluate));
  plan.exchanges = GradientExchangesOf(plan.train, plan.table.tied());
  plan.sum_channels = SumChannelsOf(plan);
  ASSIGN_OR_RETURN(plan.simulation, Simulate(plan.train, CostsOf(plan), {.policy = plan.policy}));
  plan.peak_microbatches = plan.simulation.peak_microbatches;
  // Where the order follows the times, the prediction is a bound.
  if (ForwardsJump(plan.policy)) {
    for (int stage = 0; stage < plan.train.num_stages; ++stage) {
      plan.peak_microbatches[static_cast<size_t>(stage)] =
          HeldByStage(plan.train, plan.policy, StageId(stage));
    }
  }
  ASSIGN_OR_RETURN(plan.learning_rate, LearningRate::FromSpec(spec));
  return plan;
}

proto::JobSpec SingleWorkerSpec(const proto::JobSpec& spec) {
  proto::JobSpec single = spec;
  const int data_parallel = spec.parallelism().has_dp() ? spec.parallelism().dp() : 1;
  if (!single.batch().has_gradient_groups()) {
    single.mutable_batch()->set_gradient_groups(data_parallel);
  }
  single.mutable_parallelism()->Clear();
  single.mutable_parallelism()->set_pp(1);
  single.mutable_parallelism()->set_dp(1);
  single.mutable_parallelism()->set_schedule("1f1b");
  single.mutable_resources()->set_workers(1);
  return single;
}

}  // namespace troupe
