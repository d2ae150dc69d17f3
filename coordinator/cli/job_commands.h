// `troupe ps`, `status`, `cancel`, `logs` and `attach`: questions to a coordinator about its jobs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "coordinator/report/job_report.h"

namespace troupe {

struct JobsCommand {
  std::string program = "troupe";  // as it was invoked
  std::string coordinator{};       // empty: looked for (find_coordinator.h)
  std::string run_directory{};     // of the job that is meant; empty: any
  uint64_t job = 0;                // 0: the one of run_directory, or the only one
  bool why = false;                // status: who waits for whom
  bool kill = false;               // cancel: at once, without a checkpoint
  double watch_seconds = 0;        // ps: again and again, with such pauses; 0: once
  bool follow = false;             // logs: until the job has ended
  std::optional<int32_t> rank{};   // logs: of one rank alone
  OutputFormat output = OutputFormat::kText;
};

// Each prints its answer on stdout and returns the process' exit code.
int ShowJobs(const JobsCommand& command);
int ShowStatus(const JobsCommand& command);
int CancelJob(const JobsCommand& command);
int ShowLogs(const JobsCommand& command);
// Shows what `submit` would go on to show; returns the job's exit code. Ctrl-C ends the showing.
int AttachToJob(const JobsCommand& command);

}  // namespace troupe
