// Schedules on the V placement: two chunks a rank, the second on the way back, so that the last
// stage and the loss lie on rank 0. Each Fill… writes the lists of a schedule whose shape is set.
// Pure. Sources: ZB-V, Qi et al. 2024, "Zero bubble pipeline parallelism" (2401.10241 §6).
#pragma once

#include "actors/schedule/generators.h"

namespace troupe {

// Any number of microbatches; below 2p-1 the list of 2p-1 with the missing ones left out.
void FillZeroBubbleV(const ScheduleSpec& spec, Schedule& schedule);

}  // namespace troupe
