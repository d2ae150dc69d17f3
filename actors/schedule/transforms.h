// Schedules made from schedules. Pure; all keep name, placement and what is computed.
#pragma once

#include "actors/schedule/schedule.h"
#include "actors/schedule/timeline.h"

namespace troupe {

// Every Backward as BackwardInput and BackwardWeight behind one another, so that its input
// gradient leaves after the input half.
Schedule WithSplitBackward(const Schedule& schedule);

// Every whole weight gradient as `num_parts` parts (1 to 255) behind one another.
Schedule WithWeightParts(const Schedule& schedule, int num_parts);

// The order that a run took: each rank's compute actions as its bars started; collectives keep
// their place before what follows them in the list, but for weight gradients, which may have jumped
// the queue. The bars are those of one whole step.
Schedule Frozen(const Schedule& schedule, const Timeline& timeline);

}  // namespace troupe
