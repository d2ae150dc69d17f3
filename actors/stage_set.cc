#include "actors/stage_set.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "actors/checkpoint_store.h"
#include "actors/model/product_rate.h"
#include "actors/plan/job_shape.h"
#include "actors/plan/resumption.h"

namespace troupe {

DType DTypeOfJob(const proto::JobSpec& spec) {
  return spec.train().dtype() == "bfloat16" ? DType::kBFloat16 : DType::kFloat32;
}

StageSet BuildStages(const proto::JobSpec& spec, const JobPlan& plan, Rank rank,
                     MemoryLedger& ledger) {
  StageSet stages;
  std::shared_ptr<GatheredMemory> gathered_memory;
  if (plan.GathersUnits()) {
    std::vector<StageShape> shapes;
    for (const StageId stage : plan.StagesOf(rank)) shapes.push_back(plan.ShapeOf(stage));
    gathered_memory = std::make_shared<GatheredMemory>(
        ledger, PredictGatheredUnits(plan.table, shapes, ThisVectorIsa()));
  }
  for (const StageId stage : plan.StagesOf(rank)) {
    StageModelOptions options;
    options.gathered_memory = gathered_memory;
    options.shape = plan.ShapeOf(stage);
    options.dtype = DTypeOfJob(spec);
    options.exporter = plan.Exports(rank, stage);
    options.shards = plan.ShardPlaceOf(rank, stage);
    options.first_microbatch = plan.train.FirstMicrobatch(stage).value;
    options.listed_reduction = plan.train.ListsSums(stage);
    stages[stage] = std::make_unique<StageModel>(options, plan.table, ledger);
  }
  return stages;
}

Result<int64_t> FillStages(FileSystem& files, const proto::StartRank& start, StageSet& stages) {
  std::optional<CheckpointManifest> manifest;
  if (!start.resume_from().empty()) {
    ASSIGN_OR_RETURN(manifest, ReadManifest(files, start.resume_from()));
  }
  for (auto& [stage, model] : stages) {
    StageParameters& parameters = model->parameters();
    if (manifest) {
      RETURN_IF_ERROR(ReadCheckpoint(files, start.resume_from(), *manifest, parameters));
    } else if (start.spec().model().has_init_from()) {
      RETURN_IF_ERROR(ReadHfFolder(files, start.spec().model().init_from(), parameters));
    } else {
      parameters.Initialize(static_cast<uint64_t>(start.spec().train().seed()));
    }
    model->WeightsChanged();
  }
  return manifest && !StartsNewRun(start.spec(), start.run_directory(), start.resume_from())
             ? manifest->step
             : 0;
}

std::vector<const StageParameters*> ParametersOf(const StageSet& stages) {
  std::vector<const StageParameters*> parameters;
  for (const auto& [stage, model] : stages) parameters.push_back(&model->parameters());
  return parameters;
}

Result<ModelCosts> MeasureCosts(const proto::JobSpec& spec, const Clock& clock) {
  ASSIGN_OR_RETURN(const JobShape shape, JobShapeOf(spec));
  ASSIGN_OR_RETURN(const NumberWidths widths, WidthsOf(spec.train()));
  ASSIGN_OR_RETURN(const Recompute recompute, RecomputeOf(spec.train()));
  const int threads = std::max(1, spec.resources().threads_per_worker());
  return MeasureModelCosts(shape.model, shape.batch, widths, recompute, DTypeOfJob(spec), threads,
                           clock);
}

double MeasureProductFlops(const proto::JobSpec& spec, const Clock& clock) {
  const proto::Model& model = spec.model();
  if (model.hidden_size() < 1 || model.intermediate_size() < 1) return 0;
  const MatmulShape shape{.tokens = int64_t{1} * spec.batch().micro_batch_size() *
                                    spec.batch().seq_len() / std::max(1, spec.parallelism().cp()),
                          .in = model.hidden_size(),
                          .out = model.intermediate_size(),
                          .dtype = DTypeOfJob(spec)};
  return MeasureProductRate(shape, std::max(1, spec.resources().threads_per_worker()), clock);
}

TensorDescriptor BoundaryTensor(const proto::JobSpec& spec, const JobPlan& plan) {
  const int64_t tokens = plan.batch.tokens_per_microbatch();
  const int64_t hidden = plan.config.hidden_size;
  const DType dtype = DTypeOfJob(spec);
  return {.dtype = static_cast<uint8_t>(dtype),
          .rank = 2,
          .shape = {tokens, hidden, 0, 0},
          .num_bytes = static_cast<uint64_t>(tokens * hidden * DTypeBytes(dtype))};
}

}  // namespace troupe
