// DualPipe (two directions over the same ranks) and DualPipeV (its half on the V placement): one
// skeleton of eight phases, in which Forwards and Backwards of the two chunks overlap in pairs.
// Each Fill… writes the lists of a schedule whose shape is set; each Refuse… says why the shape
// cannot be, or nothing. Pure.
// Sources: DeepSeek-V3 technical report 2024 (2412.19437 §3.2.1) and its DualPipe and DualPipeV.
#pragma once

#include <string>

#include "actors/schedule/generators.h"

namespace troupe {

void FillDualPipe(const ScheduleSpec& spec, Schedule& schedule);
std::string RefuseDualPipe(const ScheduleSpec& spec);

void FillDualPipeV(const ScheduleSpec& spec, Schedule& schedule);
std::string RefuseDualPipeV(const ScheduleSpec& spec);

}  // namespace troupe
