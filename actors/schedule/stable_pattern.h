// V-Half and V-Min: schedules on the V placement whose memory is chosen first. All ranks repeat one
// pattern of two Forwards, two input gradients and two weight gradients every six slots; how long a
// microbatch lives in the pattern is what its activations cost. Then the warm-up and the cool-down
// are squeezed. Pure.
// Source: Qi et al. 2024, "Pipeline parallelism with controllable memory" (2405.15362).
#pragma once

#include "actors/schedule/generators.h"

namespace troupe {

// Half of 1F1B's activations.
void FillVHalf(const ScheduleSpec& spec, Schedule& schedule);
// A third of them; meant for equal times of Forward, input and weight gradient.
void FillVMin(const ScheduleSpec& spec, Schedule& schedule);

}  // namespace troupe
