// What a job will do, before it does it: for people, and as JSON. Pure.
#pragma once

#include <string>

#include "actors/plan/job_plan.h"
#include "coordinator/report/memory_fit.h"
#include "runtime/base/bytes_in_words.h"

namespace troupe {

// The machine that the plan is made for: where the printer runs.
struct PlanMachine {
  int cores = 0;  // 0: unknown
  VectorIsa isa = VectorIsa::kAvx2;
};

// `columns`: widest line of the schedule's drawing.
std::string PlanText(const proto::JobSpec& spec, const JobPlan& plan, const PlanMachine& machine,
                     int columns = 100);
// `indent`: spaces a level; -1: all in one line. No newline at the end. `fit`: on this host, where
// that is known.
std::string PlanJson(const proto::JobSpec& spec, const JobPlan& plan, VectorIsa isa, int indent = 2,
                     const MemoryFit* fit = nullptr);

}  // namespace troupe
