#include "coordinator/cli/run_start.h"

#include <fmt/format.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>

#include "coordinator/job/resume.h"
#include "runtime/base/file_system.h"
#include "runtime/base/random.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

// Links resolved, so that a run's folder has one name.
std::string Resolved(const std::filesystem::path& path) {
  std::error_code error;
  const auto resolved = std::filesystem::weakly_canonical(path, error);
  return (error ? path.lexically_normal() : resolved).string();
}

Result<std::string> NewRunDirectory(const std::string& name) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char stamp[32];
  std::strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &local);
  ASSIGN_OR_RETURN(const std::string here, CurrentFolder());
  return fmt::format("{}/runs/{}/{}-{:04x}", here, name, stamp, SystemRandom().NextU64() & 0xffff);
}

Result<std::string> RunDirectoryOf(const RunCommand& command, const std::string& name) {
  if (!command.run_directory.empty()) {
    std::filesystem::path path = command.run_directory;
    if (path.is_relative()) {
      ASSIGN_OR_RETURN(const std::string here, CurrentFolder());
      path = here / path;
    }
    return Resolved(path);
  }
  const std::string latest = LatestLink(name);
  const bool there = !latest.empty() && SystemFiles().Exists(latest);
  if (command.resume == kResumeNewest && !there) {
    return MakeError(ErrorCode::kNotFound,
                     "--resume: there is no run to go on with: {} does not exist: give --run-dir, "
                     "or `--resume auto` to start anew where there is none",
                     latest);
  }
  if (there && (command.resume == kResumeNewest || command.resume == "auto")) {
    return Resolved(latest);
  }
  return NewRunDirectory(name);
}

constexpr const char* kClientLock = "client.lock";

Result<std::unique_ptr<FileLock>> LockForClient(const std::string& path,
                                                const std::string& holder) {
  RETURN_IF_ERROR(SystemFiles().CreateDirectories(path));
  auto lock = SystemFiles().Lock(JoinPath(path, kClientLock), holder);
  if (lock.ok() || lock.error().code != ErrorCode::kResourceExhausted) return lock;
  return MakeError(ErrorCode::kInvalidSpec,
                   "--run-dir {} is in use ({}): wait for its end, or give another --run-dir", path,
                   lock.error().message);
}

Result<RunStart> Decide(const RunCommand& command, LoadedJob& job) {
  RunStart start;
  ASSIGN_OR_RETURN(start.run_directory, RunDirectoryOf(command, job.spec.name()));
  if (command.resume == kResumeNewest) {
    job.spec.mutable_checkpoint()->set_resume(start.run_directory);
  }
  const bool automatic = job.spec.checkpoint().resume() == "auto";
  ASSIGN_OR_RETURN(const ResumePoint point, ResolveResume(SystemFiles(), start.run_directory, job));
  for (const std::string& note : point.notes) Talk("{}\n", note);
  start.resume_from = point.folder;
  if (!point.folder.empty()) Talk("going on from {}\n", point.folder);
  if (point.folder.starts_with(start.run_directory + "/")) {
    start.use = FolderUse::kGoOn;
    return start;
  }
  if (command.overwrite) start.use = FolderUse::kMoveAside;
  if (!automatic) return start;
  Talk("{} has no checkpoint: starts anew\n", start.run_directory);
  start.use = FolderUse::kMoveAside;  // the records of a run that never got to one
  return start;
}

// Nothing has started: whatever is wrong here is wrong with what was asked for.
Error OfTheDoor(Error error) { return {ErrorCode::kInvalidSpec, std::move(error.message)}; }

}  // namespace

std::string LatestLink(const std::string& name) {
  const auto here = CurrentFolder();
  return here.ok() ? fmt::format("{}/runs/{}/latest", *here, name) : "";
}

Result<RunStart> DecideStart(const RunCommand& command, LoadedJob& job) {
  auto start = Decide(command, job);
  if (start.ok()) return start;
  return OfTheDoor(std::move(start).error());
}

Result<std::unique_ptr<FileLock>> HoldRunFolder(RunStart& start) {
  const std::string holder = fmt::format("`troupe run`, process {}", ::getpid());
  auto lock = LockForClient(start.run_directory, holder);
  if (!lock.ok()) return OfTheDoor(std::move(lock).error());
  // Let go at once: the job itself takes that one for its time.
  const auto taken = TakeRunFolder(SystemFiles(), start.run_directory, start.use, holder);
  if (!taken.ok()) return OfTheDoor(taken.error());
  start.use = FolderUse::kGoOn;
  const bool moved = !SystemFiles().Exists(JoinPath(start.run_directory, kClientLock));
  return moved ? LockForClient(start.run_directory, holder) : std::move(lock);
}

}  // namespace troupe
