// What the parts of a model take for one microbatch, measured by a rank or counted in FLOPs, and
// what stages take that are made of them. Pure.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/layer_spec.h"
#include "actors/plan/mesh.h"
#include "actors/plan/stage_partition.h"
#include "actors/schedule/action_costs.h"
#include "proto/worker.pb.h"

namespace troupe {

struct ModelCosts {
  std::vector<StageCost>
      layers{};           // one of each kind (ModelSpec); one that is missing costs nothing
  StageCost embedding{};  // beside the layers of the first stage
  StageCost head{};       // beside the layers of the last stage: final norm, head and loss
  int64_t hop_ns = 0;     // a boundary tensor from one rank to another
};

// By floating-point operations (cost_model.h): 1 ns is a thousand of them, hops are free.
ModelCosts CostsByFlops(const ModelSpec& model, const BatchArithmetic& batch);

// The lesser of each time.
StageCost Least(const StageCost& a, const StageCost& b);

proto::ModelCosts ToProto(const ModelCosts& costs);
ModelCosts FromProto(const proto::ModelCosts& costs);

// Ranks on like hardware ("hardware" is one text a rank) take alike: of each group the least of
// every time. A rank that was disturbed while it measured does not count as slow.
std::vector<ModelCosts> LeastOfAlike(std::span<const ModelCosts> costs,
                                     std::span<const std::string> hardware);

// Everything but the hop, times `factor`.
ModelCosts Scaled(const ModelCosts& costs, double factor);

// Of the ranks of a job, by number, the costs along its pipeline, by PipelineRank: of all that
// stand at one place the most of every time, for they go on together. One alone stands for all.
std::vector<ModelCosts> CostsAlongPipeline(const Mesh& mesh, std::span<const ModelCosts> of_ranks);

// `costs` are along a pipeline, or of one rank alone that stands for all.
const ModelCosts& CostsOfRank(std::span<const ModelCosts> costs, PipelineRank rank);

// What every stage of `schedule` takes on the rank that holds it. `stages`: of one direction.
CostModel StageCostsOf(const Schedule& schedule, const ModelSpec& model,
                       std::span<const StageLayout> stages, std::span<const ModelCosts> costs);

// What weighs how much where: for the partition of stages over these ranks.
StageWeights WeightsOf(const Schedule& schedule, const ModelSpec& model,
                       std::span<const ModelCosts> costs);

}  // namespace troupe
