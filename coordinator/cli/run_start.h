// Where a run begins: its folder, the checkpoint that it goes on from, and what becomes of an
// earlier run that lies there. Decided before anything is started or submitted.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "coordinator/cli/run_command.h"
#include "coordinator/job/job_file.h"
#include "coordinator/report/run_folder.h"
#include "runtime/base/result.h"

namespace troupe {

// What `--resume` alone stands for: the newest checkpoint of the run's folder, which must have one.
constexpr std::string_view kResumeNewest = "newest";

struct RunStart {
  std::string run_directory{};  // absolute
  std::string resume_from{};    // a committed checkpoint; empty: afresh
  FolderUse use = FolderUse::kRefuse;
};

// The folder is --run-dir; with --resume alone or `--resume auto` that of the newest run of this
// name, which runs/NAME/latest leads to; else a new one below runs/. Says what the user should
// hear. kInvalidSpec where there is nothing to resume and `auto` was not said, and where
// ResolveResume refuses.
Result<RunStart> DecideStart(const RunCommand& command, LoadedJob& job);

// Takes the folder as `start` says, for this client and the daemons that it starts there, for as
// long as the lock lives; makes it where it is missing, and moves an earlier run aside. Of two
// clients at the same moment one gets it. kInvalidSpec where that cannot be.
Result<std::unique_ptr<FileLock>> HoldRunFolder(RunStart& start);

// runs/NAME/latest, where this was called; empty where that folder is gone.
std::string LatestLink(const std::string& name);

}  // namespace troupe
