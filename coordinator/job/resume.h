// Where a job goes on from: finds the committed checkpoint that checkpoint.resume asks for and
// refuses a job that differs in more than a resumed one may. Called by the command line before it
// submits. Pure apart from the FileSystem.
#pragma once

#include <string>
#include <vector>

#include "coordinator/job/job_file.h"
#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// The checkpoint's folder, or empty where the job starts afresh.
//   never: empty.  auto: the newest committed one of `run_directory`, empty where it has none.
//   PATH: that checkpoint, or the newest one of that run directory; kNotFound where there is none.
// batch.gradient_groups that nobody gave becomes the checkpoint's, so that sums keep their shape.
// kInvalidSpec names every key that differs though it must not, each with its place, or a
// train.steps or stop_after that the checkpoint has already reached.
Result<std::string> ResolveResume(FileSystem& files, const std::string& run_directory,
                                  LoadedJob& job);

// Keys of effective jobs that differ and must not: "optimizer.lr was 0.0003, is 0.001". The layout,
// the number of workers, names, paths of model files, lengths, and what is reported or saved may
// differ; math threads may not, for they change bits.
std::vector<std::string> ForbiddenDifferences(const proto::JobSpec& saved,
                                              const proto::JobSpec& now);

}  // namespace troupe
