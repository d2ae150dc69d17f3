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

// A run that a folder holds: its records, its checkpoints or its exported model.
struct EarlierRun {
  std::optional<int64_t> checkpoint_step{};  // of the newest committed one
};
// Nothing where the folder is missing, empty, or has only what a job leaves that never made a step.
Result<std::optional<EarlierRun>> FindEarlierRun(FileSystem& files, const std::string& path);

std::string ThisHost();  // by name; "host" where it has none

// A job that waits in a queue holds nothing open, and has the folder all the same: a line in it,
// the file `claim`, names the job and the process that keeps the queue. It counts while that
// process lives.
class FolderClaim {
 public:
  // Of this process; no two are alike.
  FolderClaim();

  Status WriteTo(FileSystem& files, const std::string& path) const;
  bool IsIn(FileSystem& files, const std::string& path) const;
  // Where it is this one.
  void RemoveFrom(FileSystem& files, const std::string& path) const;

 private:
  const std::string line_;
};

// What a new run does about an earlier one in its folder.
enum class FolderUse : uint8_t { kRefuse, kGoOn, kMoveAside };

// Takes the folder for `holder` ("job 3 of …"), making it where it is missing. kInvalidSpec with
// the ways on where another job holds or claims it, where it is used and may not be, and where a
// job.yaml lies in it that no run left there. Moved aside, the earlier run is whole in
// "PATH.replaced-N". `claim`: of the job that takes it, where it has one.
Result<std::unique_ptr<FileLock>> TakeRunFolder(FileSystem& files, const std::string& path,
                                                FolderUse use, const std::string& holder,
                                                const FolderClaim* claim = nullptr);

}  // namespace troupe
