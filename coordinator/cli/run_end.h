// The end of a run that no coordinator records: what its client writes, and says last.
#pragma once

#include <string>

#include "runtime/base/result.h"

namespace troupe {

// A run whose end its client may have to tell.
struct RunEnd {
  std::string run_directory{};
  std::string resume_command{};
  bool records = false;  // the folder is this client's alone: the run's daemons are its own
};

// As far as it is seen from here: result.json where the folder is this client's, and as the last
// line from which committed step to go on. `preempted`: where it was stopped, by the machine.
// Returns the process' exit code. Waits for the disk.
int TellLostEnd(const RunEnd& end, const Error& why, bool preempted);

// The exit code of a run that was stopped.
int StoppedExitCode(bool preempted);

}  // namespace troupe
