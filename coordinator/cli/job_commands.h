// `troupe ps`, `status` and `cancel`: questions to a coordinator about its jobs.
#pragma once

#include <cstdint>
#include <string>

#include "coordinator/report/job_report.h"

namespace troupe {

struct JobsCommand {
  std::string coordinator{};
  uint64_t job = 0;
  bool why = false;   // status: who waits for whom
  bool kill = false;  // cancel: at once, without a checkpoint
  OutputFormat output = OutputFormat::kText;
};

// Each prints its answer on stdout and returns the process' exit code.
int ShowJobs(const JobsCommand& command);
int ShowStatus(const JobsCommand& command);
int CancelJob(const JobsCommand& command);

}  // namespace troupe
