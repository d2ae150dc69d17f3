// What a start from a checkpoint means: the same run goes on, or a new one begins with its weights.
// Asked by whoever counts steps: the job door, the run directory and the ranks. Pure.
#pragma once

#include <string>

#include "proto/job.pb.h"
#include "runtime/base/file_system.h"

namespace troupe {

// Whether weights and optimizer state of the checkpoint `resume_from` (empty: none) begin a run of
// their own, which counts from step 0 (checkpoint.resume_as: new_run). A checkpoint of the run's
// own directory is always gone on with: so a new run, too, is resumed as any other.
inline bool StartsNewRun(const proto::JobSpec& spec, const std::string& run_directory,
                         const std::string& resume_from) {
  return !resume_from.empty() && spec.checkpoint().resume_as() == "new_run" &&
         !resume_from.starts_with(JoinPath(run_directory, "checkpoints/"));
}

}  // namespace troupe
