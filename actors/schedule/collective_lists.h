// Gathers and reductions put into a schedule's lists, where PyTorch's lowering puts them. Called by
// `troupe schedule --unshard`. Pure.
#pragma once

#include "actors/schedule/schedule.h"

namespace troupe {

// Before each action, or pair: a Reshard of every gathered stage that is not among the next
// `num_stages` different ones of the rank, an Unshard of those among them that are not gathered; in
// the end a Reshard of all. Right after the last weight gradient of a stage its ReduceGrad. The
// schedule has no collectives yet. kInvalidSpec where a pair is of more than `num_stages` stages.
Result<Schedule> WithCollectives(const Schedule& schedule, int num_stages);

}  // namespace troupe
