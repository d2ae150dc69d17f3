// Schedules whose stages lie on the ranks in a loop (stage mod ranks). Each Fill… writes the lists
// of a schedule whose shape is set; each Refuse… says why the shape cannot be, or nothing. Pure.
// Sources: GPipe, Huang et al. 2019; 1F1B = PipeDream-flush, Narayanan et al. 2021 (2006.09503);
// interleaved 1F1B, Narayanan et al. 2021 (2104.04473), with the group size of Llama 3 (2407.21783
// §3.3.2); breadth-first, Lamy-Poirier 2023 (2211.05953); zero bubble, Qi et al. 2024 (2401.10241).
#pragma once

#include <string>

#include "actors/schedule/generators.h"

namespace troupe {

void FillGpipe(const ScheduleSpec& spec, Schedule& schedule);
void FillOneForwardOneBackward(const ScheduleSpec& spec, Schedule& schedule);
// All microbatches through one chunk before the next chunk. Backwards ascend, where the paper's
// figures and PyTorch run them from the last microbatch to the first: the times are the same, and
// the gradient sums keep the bits of one worker.
void FillLoopedBreadthFirst(const ScheduleSpec& spec, Schedule& schedule);

void FillInterleaved(const ScheduleSpec& spec, Schedule& schedule);
// Interleaved 1F1B with split backwards: shorter warm-up, rank r's weight gradients r behind.
void FillInterleavedZeroBubble(const ScheduleSpec& spec, Schedule& schedule);
std::string RefuseInterleaved(const ScheduleSpec& spec);

void FillZeroBubbleH1(const ScheduleSpec& spec, Schedule& schedule);
void FillZeroBubbleH2(const ScheduleSpec& spec, Schedule& schedule);
std::string RefuseZeroBubbleH1(const ScheduleSpec& spec);
std::string RefuseZeroBubbleH2(const ScheduleSpec& spec);

}  // namespace troupe
