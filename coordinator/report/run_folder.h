// Who may write a run directory: one job at a time, and no second run over the records of a first.
// Used by the recorder, on its thread, and by the command line before it starts anything.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "runtime/base/file_lock.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// A run that a folder holds: its records or its checkpoints.
struct EarlierRun {
  std::optional<int64_t> checkpoint_step{};  // of the newest committed one
};
// Nothing where the folder is missing, empty, or has only what a job leaves that never made a step.
Result<std::optional<EarlierRun>> FindEarlierRun(FileSystem& files, const std::string& path);

// What a new run does about an earlier one in its folder.
enum class FolderUse : uint8_t { kRefuse, kGoOn, kMoveAside };

// Takes the folder for `holder` ("job 3 of …"), making it where it is missing. kInvalidSpec with
// the ways on where another job holds it or where it is used and may not be. Moved aside, the
// earlier run is whole in "PATH.replaced-N".
Result<std::unique_ptr<FileLock>> TakeRunFolder(FileSystem& files, const std::string& path,
                                                FolderUse use, const std::string& holder);

}  // namespace troupe
