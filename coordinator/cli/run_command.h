// `troupe run`, `submit` and `plan`: from a job file to a finished run.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "coordinator/report/job_report.h"

namespace troupe {

struct RunCommand {
  std::string program = "troupe";  // as it was invoked
  std::string job_file{};
  std::vector<std::string> sets{};
  std::string coordinator{};    // empty: run starts its own, submit uses TROUPE_COORDINATOR
  std::string run_directory{};  // empty: runs/NAME/TIME
  std::string resume{};         // empty: as the job says; "newest" (run_start.h), "auto" or a path
  bool overwrite = false;       // an earlier run in the run directory is moved aside
  OutputFormat output = OutputFormat::kText;
  bool follow = true;  // submit --no-wait: false
  // plan: of a rank, and of a link between two; 0: not known.
  double flops_per_second = 0;
  double bytes_per_second = 0;
  std::string command_line{};
};

// `word` as a shell reads it back: quoted where it must be.
std::string ShellWord(std::string_view word);

// Each returns the process' exit code.
int RunJob(const RunCommand& command);
int SubmitJob(const RunCommand& command);
int PlanJob(const RunCommand& command);

}  // namespace troupe
