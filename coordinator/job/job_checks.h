// What an effective job must satisfy before it may start. Pure but for looking at the files that
// the job names.
#pragma once

#include <string>
#include <vector>

#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// Every error found, one sentence each with the field's name and a remedy.
std::vector<Error> CheckJob(FileSystem& files, const proto::JobSpec& spec);

}  // namespace troupe
