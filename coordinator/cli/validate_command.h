// `troupe validate`, and the job file that it and other verbs are given.
#pragma once

#include <string>
#include <vector>

#include "coordinator/cli/run_command.h"
#include "coordinator/job/job_file.h"

namespace troupe {

// The command's job file with its --set and --resume. Of a job with errors, also what stands
// against the checkpoint that it names; of a good one, JudgeResume or DecideStart (run_start.h)
// says that.
JobReading ReadJobOf(const RunCommand& command);
// Of a job without errors that is not started now: adds every error that stands against its going
// on from the checkpoint that it asks for. Returns what the user should hear.
std::vector<std::string> JudgeResume(JobReading& reading);
// On stderr, a line each.
void TalkWarnings(const std::vector<Finding>& warnings);

// {"ok": false, "job": PATH, "errors": [{"file", "line", "column", "key", "message"}], "warnings":
// […]}; line and column are null where a finding has none, and file is then the flag.
std::string ValidationJson(const JobReading& reading, int indent);

// Returns the process' exit code: 0, 2 or 3; 1 where nothing is wrong but stdout.
int ValidateJob(const RunCommand& command);

}  // namespace troupe
