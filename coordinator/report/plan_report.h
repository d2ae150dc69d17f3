// What a job will do, before it does it: for people, and as JSON. Pure.
#pragma once

#include <string>

#include "actors/plan/job_plan.h"

namespace troupe {

// `cores` of this machine; 0: unknown. `columns`: widest line of the schedule's drawing.
std::string PlanText(const proto::JobSpec& spec, const JobPlan& plan, int cores, int columns = 100);
// `indent`: spaces a level; -1: all in one line. No newline at the end.
std::string PlanJson(const proto::JobSpec& spec, const JobPlan& plan, int indent = 2);

std::string BytesInWords(double num_bytes);  // "1.9 MiB"

}  // namespace troupe
