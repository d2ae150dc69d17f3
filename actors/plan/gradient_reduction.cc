#include "actors/plan/gradient_reduction.h"

#include <algorithm>

namespace troupe {

std::vector<GradientReduction> GradientReductionsOf(const Schedule& schedule, bool tied,
                                                    int data_parallel) {
  std::vector<GradientReduction> reductions;
  for (int stage = 0; data_parallel > 1 && stage < schedule.num_stages; ++stage) {
    reductions.push_back({SharedWeights::kStage, {StageId(stage)}});
  }
  const int chain = schedule.StagesPerDirection();
  for (int stage = chain; stage < schedule.num_stages; ++stage) {
    reductions.push_back(
        {SharedWeights::kReplica, {OwnerOf(schedule, StageId(stage)), StageId(stage)}});
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
