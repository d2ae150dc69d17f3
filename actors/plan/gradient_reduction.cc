#include "actors/plan/gradient_reduction.h"

#include <algorithm>

namespace troupe {

std::vector<GradientReduction> GradientReductionsOf(const Schedule& schedule, bool tied,
                                                    int weight_replicas) {
  std::vector<GradientReduction> reductions;
  const int chain = schedule.StagesPerDirection();
  const bool shared = weight_replicas > 1 || schedule.num_directions > 1;
  for (int stage = 0; shared && stage < chain; ++stage) {
    GradientReduction& copies = reductions.emplace_back();
    copies.weights = weight_replicas > 1 ? SharedWeights::kStage : SharedWeights::kReplica;
    for (int copy = stage; copy < schedule.num_stages; copy += chain) {
      copies.stages.emplace_back(copy);
    }
  }
  if (!tied || chain == 1) return reductions;  // both uses on one stage add up there
  for (int first = 0; first < schedule.num_stages; first += chain) {
    reductions.push_back({SharedWeights::kTied, {StageId(first), StageId(first + chain - 1)}});
  }
  return reductions;
}

std::vector<PipelineRank> RanksOf(const Schedule& schedule, const GradientReduction& reduction) {
  std::vector<PipelineRank> ranks;
  for (const StageId stage : reduction.stages) ranks.push_back(schedule.RankOf(stage));
  std::ranges::sort(ranks);
  const auto repeated = std::ranges::unique(ranks);
  ranks.erase(repeated.begin(), repeated.end());
  return ranks;
}

std::vector<StageId> StagesOn(const Schedule& schedule, const GradientReduction& reduction,
                              PipelineRank rank) {
  std::vector<StageId> stages;
  std::ranges::copy_if(reduction.stages, std::back_inserter(stages),
                       [&](StageId stage) { return schedule.RankOf(stage) == rank; });
  return stages;
}

StageId OwnerOf(const Schedule& schedule, StageId stage) {
  return StageId(stage.value % schedule.StagesPerDirection());
}

}  // namespace troupe
