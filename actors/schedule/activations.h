// How many activations a rank holds when it runs its list in order. Pure.
#pragma once

#include "actors/schedule/schedule.h"

namespace troupe {

// Most activations held at one time, in microbatches of the rank's whole share. A Forward adds its
// stage's share; of it 1 − held_for_weight (1 − ρ) goes with the input gradient, the rest with the
// weight gradient.
double PeakActivations(const Schedule& schedule, Rank rank, double held_for_weight = 1);

}  // namespace troupe
