// What a job will do, before it does it: for people, and as JSON. Pure.
#pragma once

#include <string>

#include "actors/plan/job_plan.h"

namespace troupe {

// The machine that the plan is made for: where the printer runs.
struct PlanMachine {
  int cores = 0;  // 0: unknown
  VectorIsa isa = VectorIsa::kAvx2;
};

// `columns`: widest line of the schedule's drawing.
std::string PlanText(const proto::JobSpec& spec, const JobPlan& plan, const PlanMachine& machine,
                     int columns = 100);
// `indent`: spaces a level; -1: all in one line. No newline at the end.
std::string PlanJson(const proto::JobSpec& spec, const JobPlan& plan, VectorIsa isa,
                     int indent = 2);

std::string BytesInWords(double num_bytes);  // "1.9 MiB"

}  // namespace troupe
