#include "coordinator/report/run_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <fstream>
#include <sstream>
#include <utility>

#include "runtime/format/checkpoint_manifest.h"

namespace troupe {
namespace {

constexpr const char* kLockName = "run.lock";
constexpr const char* kClaimName = "claim";
constexpr int64_t kClaimBytesMax = 4096;

// When the process started, in ticks since the machine's start, so that a number that is used again
// is not taken for the one before; empty: there is none.
std::string StartOf(int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const size_t name_end = text.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return "";
  std::istringstream fields(text.substr(name_end + 1));
  constexpr int kStart = 20;  // field 22 of all
  std::string field;
  for (int i = 0; i < kStart; ++i) fields >> field;
  return field;
}

struct Claimant {
  int64_t pid = 0;
  std::string started{};
  std::string host{};
};

// Nobody where there is no claim, or none that can be read.
std::optional<Claimant> ReadClaim(FileSystem& files, const std::string& path) {
  const auto text = files.ReadFile(JoinPath(path, kClaimName), kClaimBytesMax);
  if (!text.ok()) return {};
  Claimant claimant;
  std::istringstream words(*text);
  if (!(words >> claimant.pid >> claimant.started >> claimant.host)) return {};
  return claimant;
}

Status CheckUnclaimed(FileSystem& files, const std::string& path) {
  const auto claimant = ReadClaim(files, path);
  if (!claimant || claimant->host != ThisHost() || claimant->started.empty() ||
      StartOf(claimant->pid) != claimant->started) {
    return {};
  }
  return MakeError(ErrorCode::kInvalidSpec,
                   "--run-dir {} is that of a job that waits in the queue of coordinator process "
                   "{}: cancel that one, or give another --run-dir",
                   path, claimant->pid);
}

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

std::string ThisHost() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : "host";
}

FolderClaim::FolderClaim()
    : line_([] {
        static std::atomic<int64_t> count = 0;
        return fmt::format("{} {} {} {}\n", ::getpid(), StartOf(::getpid()), ThisHost(), ++count);
      }()) {}

Status FolderClaim::WriteTo(FileSystem& files, const std::string& path) const {
  return WriteFileAtomically(files, JoinPath(path, kClaimName), line_);
}

bool FolderClaim::IsIn(FileSystem& files, const std::string& path) const {
  const auto text = files.ReadFile(JoinPath(path, kClaimName), kClaimBytesMax);
  return text.ok() && *text == line_;
}

void FolderClaim::RemoveFrom(FileSystem& files, const std::string& path) const {
  if (IsIn(files, path)) (void)files.RemoveAll(JoinPath(path, kClaimName));
}

Result<std::optional<EarlierRun>> FindEarlierRun(FileSystem& files, const std::string& path) {
  EarlierRun run;
  const std::string checkpoints = JoinPath(path, "checkpoints");
  bool any = HasBytes(files, JoinPath(path, "metrics.jsonl")) || files.Exists(JoinPath(path, "hf"));
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
                                                FolderUse use, const std::string& holder,
                                                const FolderClaim* claim) {
  const bool anybodys =
      files.Exists(JoinPath(path, "job.yaml")) && !files.Exists(JoinPath(path, kLockName));
  if (anybodys && use != FolderUse::kGoOn) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "--run-dir {} holds a job.yaml that no run left there, and would be written "
                     "over: give a folder for the run alone",
                     path);
  }
  ASSIGN_OR_RETURN(auto lock, Lock(files, path, holder));
  if (claim == nullptr || !claim->IsIn(files, path)) {
    RETURN_IF_ERROR(CheckUnclaimed(files, path));
  }
  if (use == FolderUse::kGoOn) return lock;
  ASSIGN_OR_RETURN(const auto earlier, FindEarlierRun(files, path));
  if (!earlier) return lock;
  if (use == FolderUse::kRefuse) return Used(path, *earlier);
  RETURN_IF_ERROR(MoveAside(files, path));
  return Lock(files, path, holder);
}

}  // namespace troupe
