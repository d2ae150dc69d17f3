// Which layers, and which parameters, a pipeline stage holds. Pure.
//   Stages are contiguous; the first also holds the embedding, the last the final norm and the
//   head. Every stage has at least one layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/plan/layer_spec.h"
#include "actors/plan/parameter_table.h"

namespace troupe {

struct StageLayout {
  int stage = 0;
  int num_stages = 1;
  int first_layer = 0;
  int num_layers = 0;
  bool has_embedding() const { return stage == 0; }
  bool has_head() const { return stage == num_stages - 1; }
};

// What a stage's parts cost, in any one measure: a layer of each kind (ModelSpec) on each stage,
// what the first and the last stage hold beside.
struct StageWeights {
  std::vector<std::vector<double>> layers{};  // per stage, per kind
  double embedding = 0;
  double head = 0;
};

// Whether each of `num_stages` stages has a layer, kInfeasible by parallelism.pp where not.
Status CheckStageCount(int64_t num_layers, int num_stages, int chunks_per_rank);
// Whether parallelism.stage_layers are `num_stages` numbers of 1 and more that add up to
// `num_layers`. 0 for what is not known: that is not judged.
Status CheckStageLayers(const std::vector<int>& stage_layers, int num_stages, int64_t num_layers);

// The split whose dearest stage is cheapest; among equals the one whose stages differ least.
// Fewer layers than stages are refused (parallelism.pp). `chunks_per_rank` of the stages lie
// on each rank.
Result<std::vector<StageLayout>> PartitionStages(const ModelSpec& model,
                                                 const StageWeights& weights,
                                                 int chunks_per_rank = 1);
// The same by UnitFlops.
Result<std::vector<StageLayout>> PartitionStages(const ModelSpec& model, int num_stages,
                                                 int64_t seq_len, int chunks_per_rank = 1);

// As parallelism.stage_layers says: so many layers on each stage. Refused as CheckStageLayers does.
Result<std::vector<StageLayout>> StagesOfLayers(const ModelSpec& model,
                                                const std::vector<int>& stage_layers,
                                                int num_stages);

// The units that the stage holds (ModelSpec), first to last.
std::vector<int> UnitsOf(const ModelSpec& model, const StageLayout& layout);

// Table indices of the parameters that the stage holds, ascending. A tied embedding is held by the
// first and by the last stage.
std::vector<int> ParametersOf(const ParameterTable& table, const StageLayout& layout);
// Those that the stage votes, saves and exports: each parameter has one owner, a tied embedding the
// first stage.
std::vector<int> OwnedParametersOf(const ParameterTable& table, const StageLayout& layout);

// "layers 0-3 + embedding"
std::string Describe(const StageLayout& layout);

}  // namespace troupe
