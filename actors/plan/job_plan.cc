#include "actors/plan/job_plan.h"

#include <cmath>

#include "actors/plan/cost_model.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/validator.h"

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

// Forward actions of a step: every rank holds the whole schedule.
constexpr int64_t kActionsMax = int64_t{1} << 20;

}  // namespace

StageShape JobPlan::ShapeOf(Rank rank) const {
  return {.config = config,
          .layout = stages[static_cast<size_t>(rank.value)],
          .batch = batch,
          .widths = widths,
          .num_threads = num_threads};
}

MemoryPrediction JobPlan::MemoryOf(Rank rank, VectorIsa isa) const {
  PredictionInputs inputs{.shape = ShapeOf(rank),
                          .peak_microbatches = peak_microbatches[static_cast<size_t>(rank.value)],
                          .isa = isa};
  for (const Channel& channel : channels) {
    if (channel.to == rank) inputs.receive_slots += channel.slots;
    if (channel.from == rank) inputs.outputs_in_flight += kOutputBuffers;
  }
  const int last = train.num_ranks - 1;
  if (table.tied() && last > 0 && (rank.value == 0 || rank.value == last)) inputs.tied_slots = 1;
  return PredictMemory(table, inputs);
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
  ASSIGN_OR_RETURN(plan.stages, PartitionStages(config, ranks, plan.batch.seq_len));
  if (plan.batch.num_microbatches * ranks > kActionsMax) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "batch: {} microbatches a step on parallelism.pp = {}: use at most {} "
                     "microbatches, by a larger batch.micro_batch_size",
                     plan.batch.num_microbatches, ranks, kActionsMax / ranks);
  }
  const std::string name =
      spec.parallelism().has_schedule() ? spec.parallelism().schedule() : "1f1b";
  ASSIGN_OR_RETURN(plan.train, Generate({.name = name,
                                         .num_ranks = ranks,
                                         .num_microbatches = plan.batch.num_microbatches}));
  plan.evaluate = GenerateForwardOnly(ranks, ranks, plan.batch.num_microbatches);
  plan.sample = GenerateForwardOnly(ranks, ranks, 1);
  ASSIGN_OR_RETURN(const ScheduleReport report, Validate(plan.train));
  plan.channels = report.channels;
  for (const double peak : report.peak_activations) {
    plan.peak_microbatches.push_back(static_cast<int>(std::ceil(peak)));
  }
  ASSIGN_OR_RETURN(plan.simulation, Simulate(plan.train, CostsOf(plan)));
  ASSIGN_OR_RETURN(plan.learning_rate, LearningRate::FromSpec(spec));
  return plan;
}

proto::JobSpec SingleWorkerSpec(const proto::JobSpec& spec) {
  proto::JobSpec single = spec;
  single.mutable_parallelism()->set_pp(1);
  single.mutable_parallelism()->set_dp(1);
  single.mutable_resources()->set_workers(1);
  const int data_parallel = spec.parallelism().has_dp() ? spec.parallelism().dp() : 1;
  if (!single.batch().has_gradient_groups()) {
    single.mutable_batch()->set_gradient_groups(data_parallel);
  }
  return single;
}

}  // namespace troupe
