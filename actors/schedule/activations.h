// How many activations a rank holds when it runs its list in order. Pure.
#pragma once

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

}  // namespace troupe
