// How many activations, and gathered parameters, a rank holds when it runs its list in order. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

// Activations held while each action of the rank's list runs, in microbatches of the rank's whole
// share. A Forward adds its stage's share; of it 1 − held_for_weight (1 − ρ) goes with the input
// gradient, the rest with the weight gradient.
std::vector<double> ActivationsAlong(const Schedule& schedule, PipelineRank rank,
                                     double held_for_weight = 1);

// The most of them.
double PeakActivations(const Schedule& schedule, PipelineRank rank, double held_for_weight = 1);

// The most that the list keeps gathered at one time, from each Unshard to its Reshard: of a stage
// what `of_stage` says, by its number.
int64_t PeakGathered(const Schedule& schedule, PipelineRank rank,
                     std::span<const int64_t> of_stage);

}  // namespace troupe
