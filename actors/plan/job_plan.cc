#include "actors/plan/job_plan.h"

#include <algorithm>

#include "actors/plan/job_orders.h"
#include "actors/schedule/generators.h"
#include "runtime/base/slot_stride.h"

namespace troupe {
namespace {

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
      int hand_overs = HandOversOn(train, policy, rank);
      for (const TrainSchedule& other : others) {
        hand_overs = std::max(hand_overs, HandOversOn(other.schedule, other.policy, rank));
      }
      inputs.outputs_in_flight += hand_overs;
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

namespace {

// The sizes of the job: all that stands before the question of orders.
Status ReadSizes(const proto::JobSpec& spec, JobPlan& plan) {
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
  if (plan.batch.seq_len > plan.config.max_position_embeddings) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "batch.seq_len = {} exceeds model.max_position_embeddings = {}: shorten the "
                     "one or raise the other",
                     plan.batch.seq_len, plan.config.max_position_embeddings);
  }
  const int ranks = plan.mesh.extent(Axis::kPp);
  if (int64_t{ranks} * plan.batch.num_microbatches > kForwardsMax) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "batch.global_batch_size = {} makes {} microbatches a step, too many for "
                     "parallelism.pp = {}: use at most {}, by a larger batch.micro_batch_size",
                     plan.batch.global_batch_size, plan.batch.num_microbatches, ranks,
                     kForwardsMax / ranks);
  }
  return {};
}

Result<std::vector<StageLayout>> StagesFor(const JobPlan& plan, const proto::Parallelism& order) {
  const int chain = plan.train.StagesPerDirection();
  const std::vector<int> asked(order.stage_layers().begin(), order.stage_layers().end());
  ASSIGN_OR_RETURN(std::vector<StageLayout> stages,
                   asked.empty() ? PartitionStages(plan.config, chain, plan.batch.seq_len,
                                                   chain / plan.train.num_ranks)
                                 : StagesOfLayers(plan.config, asked, chain));
  for (int stage = chain; stage < plan.train.num_stages; ++stage) {
    stages.push_back(stages[static_cast<size_t>(stage - chain)]);
  }
  return stages;
}

// The orders, and where their stages lie.
Status ReadOrders(std::span<const proto::Parallelism> orders, JobPlan& plan) {
  for (const proto::Parallelism& order : orders) {
    ASSIGN_OR_RETURN(TrainSchedule train, TrainScheduleOf(order, plan.mesh.extent(Axis::kPp),
                                                          plan.batch.num_microbatches));
    plan.halves = plan.halves || HasHalves(train.schedule);
    if (&order != &orders.front()) {
      plan.others.push_back(std::move(train));
      continue;
    }
    plan.train = std::move(train.schedule);
    plan.policy = train.policy;
    plan.ascending = train.ascending;
  }
  return CheckGroups(plan);
}

// Microbatches that each stage keeps under an order: exact, or where order follows time a bound.
Result<Simulation> SimulateOrder(const JobPlan& plan, const Schedule& schedule,
                                 const ExecutionPolicy& policy) {
  const ModelCosts costs = CostsByFlops(plan.config, plan.batch);
  const auto chain = static_cast<size_t>(schedule.StagesPerDirection());
  const CostModel stages = StageCostsOf(schedule, {plan.stages.data(), chain}, {&costs, 1});
  ASSIGN_OR_RETURN(Simulation simulation, Simulate(schedule, stages, {.policy = policy}));
  if (policy.mode == ExecutorMode::kGuided) {
    // Weight gradients that jump the queue only free stashes earlier than the list does.
    ASSIGN_OR_RETURN(Simulation listed, Simulate(schedule, stages, {.keep_bars = false}));
    simulation.peak_microbatches = std::move(listed.peak_microbatches);
  }
  if (ForwardsJump(policy)) {
    for (int stage = 0; stage < schedule.num_stages; ++stage) {
      simulation.peak_microbatches[static_cast<size_t>(stage)] =
          HeldByStage(schedule, policy, StageId(stage));
    }
  }
  return simulation;
}

}  // namespace

Result<JobPlan> MakeJobPlan(const proto::JobSpec& spec,
                            std::span<const proto::Parallelism> orders) {
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigOf(spec.model()));
  JobPlan plan{.config = config, .table = ParameterTable(config)};
  RETURN_IF_ERROR(ReadSizes(spec, plan));
  JobOrders decided;
  if (orders.empty()) {
    ASSIGN_OR_RETURN(decided, DecideOrders(spec));
    orders = decided.orders;
    plan.reason = decided.reason;
  }
  RETURN_IF_ERROR(ReadOrders(orders, plan));
  ASSIGN_OR_RETURN(plan.stages, StagesFor(plan, orders.front()));
  const int ranks = plan.train.num_ranks;
  const std::vector<Rank> placement(plan.train.placement.begin(),
                                    plan.train.placement.begin() + plan.train.StagesPerDirection());
  plan.evaluate = GenerateForwardOnly(ranks, placement, plan.batch.num_microbatches);
  plan.sample = GenerateForwardOnly(ranks, placement, 1);
  plan.channels = WithMoreSlots(ChannelsOf(plan.train, plan.policy), ChannelsOf(plan.evaluate));
  plan.exchanges = GradientExchangesOf(plan.train, plan.table.tied());
  plan.sum_channels = SumChannelsOf(plan);
  ASSIGN_OR_RETURN(plan.simulation, SimulateOrder(plan, plan.train, plan.policy));
  plan.peak_microbatches = plan.simulation.peak_microbatches;
  for (const TrainSchedule& other : plan.others) {
    plan.channels = WithMoreSlots(plan.channels, ChannelsOf(other.schedule, other.policy));
    ASSIGN_OR_RETURN(const Simulation simulation,
                     SimulateOrder(plan, other.schedule, other.policy));
    for (size_t stage = 0; stage < plan.peak_microbatches.size(); ++stage) {
      plan.peak_microbatches[stage] =
          std::max(plan.peak_microbatches[stage], simulation.peak_microbatches[stage]);
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
