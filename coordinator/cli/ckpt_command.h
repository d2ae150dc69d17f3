// `troupe ckpt verify|list|show`: what checkpoints hold, and whether it is what was written.
#pragma once

#include <string>

#include "coordinator/report/job_report.h"

namespace troupe {

struct CkptCommand {
  std::string path{};  // of a checkpoint, of a run directory, or of a folder of checkpoints
  OutputFormat output = OutputFormat::kText;
};

// Each prints its answer on stdout and returns the process' exit code: 2 where there is no
// checkpoint, 1 where stdout takes no answer.
int VerifyCheckpoints(const CkptCommand& command);  // reads every byte; 1: some are damaged
int ListCheckpoints(const CkptCommand& command);    // reads manifests; 1: some cannot be read
int ShowCheckpoint(const CkptCommand& command);     // the newest; 1: it cannot be read

}  // namespace troupe
