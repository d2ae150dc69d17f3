// A job of a file, for tests that look at no single finding of a bad one.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "coordinator/job/job_file.h"

namespace troupe::testing {

inline Result<LoadedJob> LoadJob(FileSystem& files, const std::string& path,
                                 const std::vector<Override>& overrides) {
  JobReading reading = ReadJob(files, path, overrides);
  if (!reading.errors.empty()) return Joined(reading.errors);
  return std::move(reading.job);
}

}  // namespace troupe::testing
