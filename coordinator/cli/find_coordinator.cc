#include "coordinator/cli/find_coordinator.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "coordinator/cli/address.h"
#include "runtime/base/file_system.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFileName = "coordinator";
constexpr int64_t kAddressBytesMax = 1024;
constexpr int kAskMs = 5000;
constexpr size_t kFoldersMax = 10'000;  // looked at below runs/

Result<std::string> AddressIn(const std::string& run_directory) {
  ASSIGN_OR_RETURN(std::string text,
                   SystemFiles().ReadFile(JoinPath(run_directory, kFileName), kAddressBytesMax));
  while (text.ends_with('\n')) text.pop_back();
  return ParseAddress(text, AddressUse::kConnect);
}

// runs/NAME and runs/NAME/TIME that have the file, below where the command was typed. Links, such
// as `latest`, name folders that are there already.
std::vector<std::string> RunsWithCoordinator() {
  std::vector<std::string> found;
  size_t looked_at = 0;
  const auto each_folder = [&](const fs::path& folder, const auto& use) {
    std::error_code error;
    for (auto entry = fs::directory_iterator(folder, error);
         !error && entry != fs::directory_iterator() && looked_at < kFoldersMax;
         entry.increment(error)) {
      std::error_code ignored;
      if (entry->is_symlink(ignored) || !entry->is_directory(ignored)) continue;
      ++looked_at;
      if (fs::is_regular_file(entry->path() / kFileName, ignored)) {
        found.push_back(entry->path().string());
      }
      use(entry->path());
    }
  };
  each_folder("runs", [&](const fs::path& run) { each_folder(run, [](const fs::path&) {}); });
  std::ranges::sort(found);
  return found;
}

Result<FoundCoordinator> Ask(const std::string& address) {
  FoundCoordinator found{.address = address, .client = ConnectControl(address, kAskMs)};
  ASSIGN_OR_RETURN(found.jobs, found.client->ListJobs());
  return found;
}

std::string Resolved(const std::string& path) {
  std::error_code ignored;
  const fs::path real = fs::weakly_canonical(path, ignored);
  return ignored ? path : real.string();
}

void KeepJobsOf(const std::string& run_directory, FoundCoordinator& found) {
  const std::string wanted = Resolved(run_directory);
  auto* jobs = found.jobs.mutable_jobs();
  const auto others = std::remove_if(jobs->begin(), jobs->end(), [&](const auto& job) {
    return Resolved(job.run_directory()) != wanted;
  });
  jobs->erase(others, jobs->end());
}

Result<std::vector<FoundCoordinator>> OfFolder(const std::string& run_directory) {
  const auto written = AddressIn(run_directory);
  // A run that was submitted has no coordinator of its own.
  const std::string address = written.ok() ? *written : std::string(kDefaultAddress);
  auto found = Ask(address);
  if (found.ok()) KeepJobsOf(run_directory, *found);
  if (!found.ok() || found->jobs.jobs().empty()) {
    return MakeError(ErrorCode::kUnavailable,
                     "{}: no run goes on there: see its result.json, or give the --coordinator "
                     "that runs it",
                     run_directory);
  }
  std::vector<FoundCoordinator> all;
  all.push_back(*std::move(found));
  return all;
}

}  // namespace

CoordinatorFile::CoordinatorFile(const std::string& run_directory, const std::string& address)
    : path_(JoinPath(run_directory, kFileName)) {
  const Status written = WriteFileAtomically(SystemFiles(), path_, address + "\n");
  if (!written.ok()) Talk("`troupe ps` will not find this run: {}\n", written.error().message);
}

CoordinatorFile::~CoordinatorFile() { (void)SystemFiles().RemoveAll(path_); }

bool IsOfRun(const std::string& address, const std::string& run_directory) {
  const auto written = AddressIn(run_directory);
  return written.ok() && *written == address;
}

Result<std::vector<FoundCoordinator>> FindCoordinators(const JobsCommand& command) {
  std::vector<FoundCoordinator> all;
  if (!command.coordinator.empty()) {
    ASSIGN_OR_RETURN(auto named, Ask(command.coordinator));
    if (!command.run_directory.empty()) KeepJobsOf(command.run_directory, named);
    all.push_back(std::move(named));
    return all;
  }
  if (!command.run_directory.empty()) return OfFolder(command.run_directory);
  std::set<std::string> addresses = {std::string(kDefaultAddress)};
  for (const std::string& run : RunsWithCoordinator()) {
    if (auto address = AddressIn(run); address.ok()) addresses.insert(*std::move(address));
  }
  for (const std::string& address : addresses) {
    if (auto found = Ask(address); found.ok()) all.push_back(*std::move(found));
  }
  if (!all.empty()) return all;
  return MakeError(ErrorCode::kUnavailable,
                   "no coordinator answers at {}, and no run goes on below runs/: start one with "
                   "`troupe coordinator --state DIR`, or name one with --coordinator HOST:PORT",
                   kDefaultAddress);
}

Result<FoundJob> FindJob(const JobsCommand& command) {
  ASSIGN_OR_RETURN(auto coordinators, FindCoordinators(command));
  std::vector<FoundJob> found;
  for (FoundCoordinator& coordinator : coordinators) {
    const proto::ListJobsReply jobs = coordinator.jobs;
    for (const proto::JobSummary& job : jobs.jobs()) {
      if (command.job != 0 && job.job() != command.job) continue;
      found.push_back({.coordinator = {.address = coordinator.address}, .summary = job});
    }
  }
  if (found.empty()) {
    if (command.job == 0) return MakeError(ErrorCode::kNotFound, "there is no job");
    return MakeError(ErrorCode::kNotFound, "there is no job {}: `troupe ps` lists them",
                     command.job);
  }
  if (found.size() > 1) {
    std::string places;
    for (const FoundJob& job : found) {
      places += fmt::format("\n  job {} in {}", job.summary.job(), job.summary.run_directory());
    }
    return MakeError(ErrorCode::kInvalidSpec, "which one? Give its {}:{}",
                     command.job == 0 ? "number, or --run-dir DIR" : "--run-dir DIR", places);
  }
  found[0].coordinator.client = ConnectControl(found[0].coordinator.address);
  return std::move(found[0]);
}

}  // namespace troupe
