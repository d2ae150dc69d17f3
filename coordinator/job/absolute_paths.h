// Paths in a job: relative to the file, or to the folder of a command line, that gives them. Made
// absolute when the job is read, in its keys and in the text of it that a run directory keeps. Pure
// apart from the FileSystem.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "coordinator/job/provenance.h"
#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// By its words alone: "a/../b" in "/c" is "/c/b".
std::string AbsolutePath(const std::string& folder, const std::string& path);
// A value in a job's text that is to be another.
struct Edit {
  Place place{};
  std::string from{};
  std::string to{};
};

// Makes the paths that `spec` gives absolute, from `folder`; what a run's `latest` names is
// followed now, for it moves on when this job starts. Returns what has changed, placed by
// `provenance`.
std::vector<Edit> ResolvePaths(FileSystem& files, const std::string& folder,
                               const Provenance& provenance, proto::JobSpec& spec);

// `text` with the scalars at these places replaced. A scalar that spans lines, or has a tag or an
// anchor, is left: whoever needs to know reads the text again.
std::string WithEdits(std::string_view text, std::vector<Edit> edits);

}  // namespace troupe
