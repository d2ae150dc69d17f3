#include "coordinator/report/run_folder.h"

#include <fmt/format.h>

#include <utility>

#include "runtime/format/checkpoint_manifest.h"

namespace troupe {
namespace {

constexpr const char* kLockName = "run.lock";

bool HasBytes(FileSystem& files, const std::string& path) {
  const auto bytes = files.FileBytes(path);
  return bytes.ok() && *bytes > 0;
}

Result<std::unique_ptr<FileLock>> Lock(FileSystem& files, const std::string& path,
                                       const std::string& holder) {
  RETURN_IF_ERROR(files.CreateDirectories(path));
  auto lock = files.Lock(JoinPath(path, kLockName), holder);
  if (lock.ok() || lock.error().code != ErrorCode::kResourceExhausted) return lock;
  return MakeError(ErrorCode::kInvalidSpec,
                   "--run-dir {} is in use ({}): wait for its end, or give another --run-dir", path,
                   lock.error().message);
}

Error Used(const std::string& path, const EarlierRun& run) {
  const std::string what =
      run.checkpoint_step ? fmt::format("a run with a checkpoint of step {}", *run.checkpoint_step)
                          : "the records of a run";
  return MakeError(ErrorCode::kInvalidSpec,
                   "--run-dir {} holds {}: go on from it with --resume, give another --run-dir, or "
                   "move it aside whole with --overwrite",
                   path, what);
}

Status MoveAside(FileSystem& files, const std::string& path) {
  for (int number = 1;; ++number) {
    const std::string aside = fmt::format("{}.replaced-{}", path, number);
    if (!files.Exists(aside)) return files.Rename(path, aside);
  }
}

}  // namespace

Result<std::optional<EarlierRun>> FindEarlierRun(FileSystem& files, const std::string& path) {
  EarlierRun run;
  const std::string checkpoints = JoinPath(path, "checkpoints");
  bool any = HasBytes(files, JoinPath(path, "metrics.jsonl"));
  if (files.Exists(checkpoints)) {
    const auto newest = FindNewestCheckpoint(files, checkpoints);
    // A damaged one is a run all the same: whoever resumes is told.
    if (!newest.ok()) any = true;
    if (newest.ok() && *newest) run.checkpoint_step = (*newest)->manifest.step;
  }
  if (!any && !run.checkpoint_step) return std::optional<EarlierRun>();
  return std::optional(run);
}

Result<std::unique_ptr<FileLock>> TakeRunFolder(FileSystem& files, const std::string& path,
                                                FolderUse use, const std::string& holder) {
  ASSIGN_OR_RETURN(auto lock, Lock(files, path, holder));
  if (use == FolderUse::kGoOn) return lock;
  ASSIGN_OR_RETURN(const auto earlier, FindEarlierRun(files, path));
  if (!earlier) return lock;
  if (use == FolderUse::kRefuse) return Used(path, *earlier);
  RETURN_IF_ERROR(MoveAside(files, path));
  return Lock(files, path, holder);
}

}  // namespace troupe
