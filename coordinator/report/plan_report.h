// What a job will do, before it does it: for people, and as JSON. Pure.
#pragma once

#include <string>

#include "actors/plan/job_plan.h"
#include "coordinator/report/memory_fit.h"
#include "runtime/base/bytes_in_words.h"

namespace troupe {

// The machines that the plan is made for: by default where the printer runs.
struct PlanMachine {
  int cores = 0;  // 0: unknown
  VectorIsa isa = VectorIsa::kAvx2;
  // Of a rank in attention, and of a link between two ranks; 0: unknown.
  double flops_per_second = 0;
  double bytes_per_second = 0;

  bool speeds_known() const { return flops_per_second > 0 && bytes_per_second > 0; }
};

// `columns`: widest line of the schedule's drawing.
std::string PlanText(const proto::JobSpec& spec, const JobPlan& plan, const PlanMachine& machine,
                     int columns = 100);
// `indent`: spaces a level; -1: all in one line. No newline at the end. `fit`: on this host, where
// that is known.
std::string PlanJson(const proto::JobSpec& spec, const JobPlan& plan, const PlanMachine& machine,
                     int indent = 2, const MemoryFit* fit = nullptr);

}  // namespace troupe
