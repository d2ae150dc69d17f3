// Which checkpoint a job goes on from, and whether it may: layout, steps, checkpoint, log, eval and
// resources.workers may differ from the run that wrote it, nothing else.
#pragma once

#include <string>
#include <vector>

#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// The folder of the checkpoint, or empty where the job starts anew: `never`, or `auto` in a run
// directory without a committed one. A checkpoint of another job is refused with every difference
// by name. A grouping of gradients that the job leaves open becomes the checkpoint's.
Result<std::string> ResolveResume(FileSystem& files, proto::JobSpec& spec,
                                  const std::string& run_directory);

// "optimizer.lr was 0.001, is 0.002", for every key that may not differ. Pure.
std::vector<std::string> ForbiddenDifferences(const proto::JobSpec& before,
                                              const proto::JobSpec& now);

}  // namespace troupe
