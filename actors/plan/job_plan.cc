#include "actors/plan/job_plan.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "actors/plan/context_parallel_keys.h"
#include "actors/plan/job_orders.h"
#include "actors/plan/job_shape.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

// Of a unit, in doubles: its sizes may be too large for integers.
double ElementsOf(const LayerSpec& unit) {
  double elements = 0;
  for (const ParameterSpec& p : unit.parameters) {
    elements += static_cast<double>(p.rows) * static_cast<double>(p.columns);
  }
  return elements;
}
double WidthOf(const LayerSpec& unit) {
  double columns = 0;
  for (const LayerTensor& tensor : unit.tensors) columns += static_cast<double>(tensor.columns);
  return columns;
}

// Sums of bytes stay below an exabyte, and so within 63 bits.
Status CheckMagnitude(const ModelSpec& model, const BatchArithmetic& batch) {
  constexpr double kBytesMax = 0x1p60;
  constexpr double kBytesPerParameter = 32;  // masters, moments, two gradients, a copy
  constexpr double kBytesPerNumber = 8;      // of a token's
  double parameters = 0;
  double width = 0;
  for (int unit = 0; unit < model.num_units(); ++unit) {
    parameters += ElementsOf(model.unit(unit));
    width += WidthOf(model.unit(unit));
  }
  if (parameters * kBytesPerParameter > kBytesMax) {
    const ModelConfig& c = model.config;
    return MakeError(ErrorCode::kInfeasible,
                     "model.hidden_size = {}, model.intermediate_size = {}, "
                     "model.num_attention_heads x model.head_dim = {} x {} and "
                     "model.vocab_size = {} make {:.1e} parameters, more than can be counted in "
                     "bytes: use smaller ones",
                     c.hidden_size, c.intermediate_size, c.num_attention_heads, c.head_dim,
                     c.vocab_size, parameters);
  }
  const double tokens =
      static_cast<double>(batch.global_batch_size) * static_cast<double>(batch.seq_len);
  if (tokens * width * kBytesPerNumber > kBytesMax) {
    return MakeError(ErrorCode::kInfeasible,
                     "batch.global_batch_size x batch.seq_len = {} x {} tokens a step have more "
                     "activations than can be counted in bytes: use fewer",
                     batch.global_batch_size, batch.seq_len);
  }
  return {};
}

// Of a step; 0: not known.
struct StepSize {
  int num_ranks = 0;
  int num_microbatches = 0;
};

// Mesh and batch.
StepSize ReadSizes(const proto::JobSpec& spec, JobPlan& plan, std::vector<Error>& errors) {
  const proto::Parallelism& p = spec.parallelism();
  plan.mesh = Mesh::Read(p, errors);
  const auto extent = [&plan](Axis axis) { return plan.mesh.extent(axis); };
  for (const Axis axis : {Axis::kTp, Axis::kEp}) {
    if (extent(axis) == 1) continue;
    errors.push_back(
        MakeError(ErrorCode::kInvalidSpec,
                  "parallelism.{} = {}: only pipeline (pp), data (dp) and context (cp) "
                  "parallelism are built so far; use {}: 1",
                  AxisName(axis), extent(axis), AxisName(axis)));
  }
  const bool dp_known = !p.has_dp() || extent(Axis::kDp) == p.dp();
  const bool cp_known = !p.has_cp() || extent(Axis::kCp) == p.cp();
  const int data_parallel = dp_known ? extent(Axis::kDp) : 0;
  plan.zero = ReadZero(p, dp_known && cp_known ? plan.mesh.num_replicas() : 0, errors);
  plan.bucket_bytes = ReadBucketBytes(p, errors);
  plan.reduction = ReadReduction(spec, errors);
  const auto grad_reduce = GradReduceOf(p);
  if (!grad_reduce.ok()) errors.push_back(grad_reduce.error());
  BatchReading batch =
      ReadBatch(spec.batch(), data_parallel, grad_reduce.ok() ? *grad_reduce : GradReduce::kStep);
  std::ranges::move(batch.errors, std::back_inserter(errors));
  plan.batch = batch.batch;
  plan.batch.context = ReadContext(spec, extent(Axis::kCp), errors);
  plan.batch.packs_documents = spec.data().has_document_separator();
  StepSize size{.num_ranks = !p.has_pp() || extent(Axis::kPp) == p.pp() ? extent(Axis::kPp) : 0,
                .num_microbatches = plan.batch.num_microbatches};
  if (int64_t{size.num_ranks} * size.num_microbatches > kForwardsMax) {
    errors.push_back(
        MakeError(ErrorCode::kInvalidSpec,
                  "batch.global_batch_size = {} makes {} microbatches a step, too many for "
                  "parallelism.pp = {}: use at most {}, by a larger batch.micro_batch_size",
                  plan.batch.global_batch_size, size.num_microbatches, size.num_ranks,
                  kForwardsMax / size.num_ranks));
    size.num_microbatches = 0;
  }
  return size;
}

// What holds between the model and the batch; a size that is not known is 0.
void CheckTokens(const JobPlan& plan, std::vector<Error>& errors) {
  const int64_t positions = plan.config.max_position_embeddings;
  if (positions > 0 && plan.batch.seq_len > positions) {
    errors.push_back(MakeError(ErrorCode::kInvalidSpec,
                               "batch.seq_len = {} exceeds model.max_position_embeddings = {}: "
                               "shorten the one or raise the other",
                               plan.batch.seq_len, positions));
  }
  CheckContext(plan.batch.context, plan.config, plan.batch.seq_len, errors);
  if (Status small = CheckMagnitude(plan.config, plan.batch); !small.ok()) {
    errors.push_back(std::move(small).error());
  }
}

// What holds between the layers and the ranks that they lie on; `num_stages` of a direction.
void CheckStages(const JobPlan& plan, const proto::Parallelism& order, int num_ranks,
                 int num_stages, std::vector<Error>& errors) {
  const int64_t layers = plan.config.num_hidden_layers;
  const auto collect = [&errors](Status status) {
    if (status.ok()) return true;
    errors.push_back(std::move(status).error());
    return false;
  };
  // Every rank holds one stage or more.
  const int least = std::max(num_stages, num_ranks);
  const bool enough =
      layers == 0 || num_ranks == 0 || collect(CheckStageCount(layers, least, least / num_ranks));
  const std::vector<int> asked(order.stage_layers().begin(), order.stage_layers().end());
  if (!asked.empty()) collect(CheckStageLayers(asked, enough ? num_stages : 0, layers));
}

Result<std::vector<StageLayout>> StagesFor(const JobPlan& plan, const proto::Parallelism& order) {
  const int chain = plan.train.StagesPerDirection();
  const std::vector<int> asked(order.stage_layers().begin(), order.stage_layers().end());
  ASSIGN_OR_RETURN(std::vector<StageLayout> stages,
                   asked.empty() ? PartitionStages(plan.table.model(), chain, plan.batch.seq_len,
                                                   chain / plan.train.num_ranks)
                                 : StagesOfLayers(plan.table.model(), asked, chain));
  for (int stage = chain; stage < plan.train.num_stages; ++stage) {
    stages.push_back(stages[static_cast<size_t>(stage - chain)]);
  }
  return stages;
}

// The orders' schedules. False where one cannot be.
bool ReadOrders(std::span<const proto::Parallelism> orders, StepSize size, JobPlan& plan,
                std::vector<Error>& errors) {
  for (const proto::Parallelism& order : orders) {
    auto train = ReadTrainSchedule(order, size.num_ranks, size.num_microbatches, errors);
    if (!train) return false;
    if (&order != &orders.front()) {
      plan.others.push_back(*std::move(train));
      continue;
    }
    const bool groups_known = plan.batch.gradient_groups >= 1;
    if (Status agree = groups_known ? CheckGroups(order, *train, plan.batch) : Status{};
        !agree.ok()) {
      errors.push_back(std::move(agree).error());
    }
    plan.train = std::move(train->schedule);
    plan.policy = train->policy;
    plan.ascending = train->ascending;
  }
  return true;
}

// Microbatches that each stage keeps under an order: exact, or where order follows time a bound.
Result<Simulation> SimulateOrder(const JobPlan& plan, const Schedule& schedule,
                                 const ExecutionPolicy& policy) {
  const ModelCosts costs = CostsByFlops(plan.table.model(), plan.batch);
  const auto chain = static_cast<size_t>(schedule.StagesPerDirection());
  const CostModel stages =
      StageCostsOf(schedule, plan.table.model(), {plan.stages.data(), chain}, {&costs, 1});
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

// A weight gradient reads no weights: where these are gathered, it may run while another action
// waits for a unit. The partners of a pair would both wait for one.
void LetWeightGradientsFillWaits(const Schedule& schedule, ExecutionPolicy& policy) {
  const bool has_pairs = std::ranges::any_of(schedule.ranks, [](const auto& actions) {
    return std::ranges::any_of(actions,
                               [](const Action& action) { return action.pair != kNotPaired; });
  });
  if (policy.mode == ExecutorMode::kStrict || !schedule.HasHalves() || has_pairs) return;
  policy.open_actions = std::max(policy.open_actions, 2);
}

}  // namespace

Status DeriveFromSchedules(JobPlan& plan) {
  if (plan.GathersUnits()) {
    LetWeightGradientsFillWaits(plan.train, plan.policy);
    for (TrainSchedule& other : plan.others) {
      LetWeightGradientsFillWaits(other.schedule, other.policy);
    }
  }
  plan.halves =
      plan.train.HasHalves() || std::ranges::any_of(plan.others, [](const TrainSchedule& other) {
        return other.schedule.HasHalves();
      });
  const int ranks = plan.train.num_ranks;
  CHECK(ranks == plan.mesh.extent(Axis::kPp), "a schedule of {} ranks in a mesh of {}", ranks,
        plan.mesh.Name());
  const std::vector<PipelineRank> placement(
      plan.train.placement.begin(), plan.train.placement.begin() + plan.train.StagesPerDirection());
  plan.evaluate = GenerateForwardOnly(ranks, placement, plan.batch.num_microbatches);
  plan.sample = GenerateForwardOnly(ranks, placement, 1);
  plan.evaluate.edges = plan.sample.edges = plan.train.edges;
  plan.channels = WithMoreSlots(ChannelsOf(plan.train, plan.policy), ChannelsOf(plan.evaluate));
  plan.reductions =
      GradientReductionsOf(plan.train, plan.table.tied(), plan.batch.weight_replicas());
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
  return {};
}

namespace {

// Into `errors` where it failed.
template <typename T>
std::optional<T> Collect(Result<T> result, std::vector<Error>& errors) {
  if (result.ok()) return *std::move(result);
  errors.push_back(std::move(result).error());
  return std::nullopt;
}

}  // namespace

JobPlanReading ReadJobPlan(const proto::JobSpec& spec, std::span<const proto::Parallelism> orders) {
  ModelConfigReading model = ReadModelConfig(spec.model());
  JobPlanReading reading{.errors = std::move(model.errors)};
  std::vector<Error>& errors = reading.errors;
  JobPlan plan{.config = model.config,
               .table = ParameterTable(model.shapes_agree ? model.config : ModelConfig{})};
  plan.widths = ReadWidths(spec.train(), errors);
  plan.recompute = Collect(RecomputeOf(spec.train()), errors).value_or(Recompute::kNone);
  if (spec.resources().threads_per_worker() > 0) {
    plan.num_threads = spec.resources().threads_per_worker();
  }
  plan.learning_rate = LearningRate::Read(spec, errors);
  const StepSize size = ReadSizes(spec, plan, errors);
  CheckTokens(plan, errors);
  JobOrders decided;
  if (orders.empty() && ChoosesSchedule(spec.parallelism())) {
    CheckChoice(spec.parallelism(), size.num_ranks, size.num_microbatches, errors);
    CheckStages(plan, {}, size.num_ranks, 0, errors);
    if (!errors.empty()) return reading;
    auto chosen = Collect(DecideOrders(spec), errors);
    if (!chosen) return reading;
    decided = *std::move(chosen);
    plan.reason = decided.reason;
    orders = decided.orders;
  } else if (orders.empty()) {
    orders = {&spec.parallelism(), 1};
  }
  const bool listed = ReadOrders(orders, size, plan, errors);
  const int stages = listed                ? plan.train.StagesPerDirection()
                     : size.num_ranks == 0 ? 0
                                           : StagesByKeys(orders.front(), size.num_ranks);
  CheckStages(plan, orders.front(), size.num_ranks, stages, errors);
  if (!errors.empty()) return reading;
  auto laid_out = Collect(StagesFor(plan, orders.front()), errors);
  if (!laid_out) return reading;
  plan.stages = *std::move(laid_out);
  if (Status derived = DeriveFromSchedules(plan); !derived.ok()) {
    errors.push_back(std::move(derived).error());
    return reading;
  }
  reading.plan = std::move(plan);
  return reading;
}

Result<JobPlan> MakeJobPlan(const proto::JobSpec& spec,
                            std::span<const proto::Parallelism> orders) {
  JobPlanReading reading = ReadJobPlan(spec, orders);
  if (!reading.plan) return std::move(reading.errors.front());
  return *std::move(reading.plan);
}

proto::JobSpec SingleWorkerSpec(const proto::JobSpec& spec) {
  proto::JobSpec single = spec;
  const proto::Parallelism& layout = spec.parallelism();
  const auto named = GradReduceOf(layout);
  const GradReduce grad_reduce = named.ok() ? *named : GradReduce::kStep;
  if (!single.batch().has_gradient_groups()) {
    const BatchReading batch =
        ReadBatch(spec.batch(), layout.has_dp() ? layout.dp() : 1, grad_reduce);
    single.mutable_batch()->set_gradient_groups(batch.batch.gradient_groups);
  }
  proto::Parallelism& alone = *single.mutable_parallelism();
  alone.Clear();
  alone.set_pp(1);
  alone.set_dp(1);
  alone.set_schedule("1f1b");
  alone.set_grad_reduce(std::string(GradReduceName(grad_reduce)));
  single.clear_data_parallel();
  single.mutable_resources()->set_workers(1);
  return single;
}

}  // namespace troupe
