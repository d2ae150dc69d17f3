// What the files that a job names must hold before it may start: data and first weights. Asked by
// the command line, which sees the files; ranks look at their own part again. Pure apart from the
// FileSystem.
#pragma once

#include <string>
#include <vector>

#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

struct FileFindings {
  std::vector<Error> errors{};  // one sentence each with the field's name and a remedy
  std::vector<std::string> warnings{};
};

// Reads headers, and every token of a token file. What the job's keys must be for the question to
// make sense is CheckJob's matter: keys that are wrong are no finding here.
FileFindings CheckFiles(FileSystem& files, const proto::JobSpec& spec);

}  // namespace troupe
