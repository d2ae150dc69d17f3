// Whose a folder of checkpoints is, so that two starts of one job never write there together: a
// start that was silent and comes back sees that another has taken its place. Used by rank 0.
#pragma once

#include <string>

#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// Whose `checkpoints_dir` is: written by who starts to write there, before anything else.
// CheckOwner refuses with kStale where another has taken it over since; an empty `owner` owns
// nothing and is never refused. A folder that was removed meanwhile is nobody's, and is taken
// again: what a run has trained is not lost with it.
Status TakeOwnership(FileSystem& files, const std::string& checkpoints_dir,
                     const std::string& owner);
Status CheckOwner(FileSystem& files, const std::string& checkpoints_dir, const std::string& owner);

}  // namespace troupe
