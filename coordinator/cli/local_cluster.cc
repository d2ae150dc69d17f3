#include "coordinator/cli/local_cluster.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <span>
#include <thread>

#include "coordinator/agent/child_process.h"
#include "runtime/base/clock.h"
#include "runtime/base/file_system.h"
#include "runtime/base/signal_name.h"

namespace troupe {
namespace {

constexpr int kStartMs = 10'000;
constexpr int kStopMs = 3000;
constexpr int kKillMs = 500;  // a killed process that waits for a disk ends when the disk answers
constexpr int kPauseMs = 2000;
constexpr int kLookMs = 5;
constexpr int64_t kTailBytes = 4096;  // of a log, for its last line
constexpr std::string_view kGreeting = "listening on ";

// Whether `done` within `patience_ms`.
bool Wait(int patience_ms, const std::function<bool()>& done) {
  const int64_t until_ns = SystemClock().NowNs() + int64_t{patience_ms} * 1'000'000;
  while (!done()) {
    if (SystemClock().NowNs() > until_ns) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(kLookMs));
  }
  return true;
}

std::string OwnProgram() {
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).string();
}

Result<int> OpenLog(const std::string& path) {
  // Not blocking: what is no file may have nobody at its other end.
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0644);
  if (fd < 0) {
    return MakeError(ErrorCode::kIo, "{}: cannot open for writing: {}", path, std::strerror(errno));
  }
  return fd;
}

// The address in the coordinator's first line.
Result<std::string> ReadAddress(int fd, const std::function<bool()>& stop_asked) {
  std::string line;
  const int64_t until_ns = SystemClock().NowNs() + int64_t{kStartMs} * 1'000'000;
  for (char c = 0; c != '\n';) {
    if (stop_asked()) return MakeError(ErrorCode::kCancelled, "stopped before anything ran");
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, kLookMs) <= 0) {
      if (SystemClock().NowNs() < until_ns) continue;
      return MakeError(ErrorCode::kUnavailable, "the coordinator did not start within {} ms",
                       kStartMs);
    }
    if (::read(fd, &c, 1) != 1) {
      return MakeError(ErrorCode::kUnavailable, "the coordinator ended at its start");
    }
    if (c != '\n') line += c;
  }
  const size_t at = line.find(kGreeting);
  if (at == std::string::npos) {
    return MakeError(ErrorCode::kUnavailable, "the coordinator said: {}", line);
  }
  return line.substr(at + kGreeting.size());
}

// Of a file of any size; empty where it cannot be read.
std::string LastLine(const std::string& path) {
  const auto file = SystemFiles().OpenForRead(path);
  if (!file.ok()) return "";
  const auto version = (*file)->Version();
  if (!version.ok()) return "";
  std::string tail(static_cast<size_t>(std::min(version->num_bytes, kTailBytes)), '\0');
  const auto bytes = std::as_writable_bytes(std::span(tail));
  if (!(*file)->ReadAt(version->num_bytes - std::ssize(tail), bytes).ok()) return "";
  const size_t end = tail.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const size_t before = tail.rfind('\n', end);
  return tail.substr(before + 1, end - before);  // npos + 1 is 0
}

}  // namespace

// ---- starting --------------------------------------------------------------------------------

Result<std::unique_ptr<LocalCluster>> LocalCluster::Start(const std::string& state_directory,
                                                          const std::string& log_directory,
                                                          int slots,
                                                          const std::function<bool()>& stop_asked) {
  RETURN_IF_ERROR(SystemFiles().CreateDirectories(log_directory));
  auto cluster = std::unique_ptr<LocalCluster>(new LocalCluster());
  cluster->coordinator_.log = JoinPath(log_directory, "coordinator.log");
  cluster->agent_.log = JoinPath(log_directory, "agent.log");
  auto address = cluster->StartCoordinator(state_directory, stop_asked);
  if (!address.ok()) {
    std::string end;  // its pipe closes before it has gone
    Wait(kKillMs, [&] { return !(end = cluster->CoordinatorEnd()).empty(); });
    if (!end.empty()) return Error{ErrorCode::kUnavailable, end};
    return std::move(address).error();
  }
  cluster->address_ = *std::move(address);
  RETURN_IF_ERROR(cluster->StartAgent(slots));
  return cluster;
}

Result<std::string> LocalCluster::StartCoordinator(const std::string& state_directory,
                                                   const std::function<bool()>& stop_asked) {
  ASSIGN_OR_RETURN(const int log, OpenLog(coordinator_.log));
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) {
    ::close(log);
    return MakeError(ErrorCode::kResourceExhausted, "no pipe: {}", std::strerror(errno));
  }
  auto pid = StartProgram(
      {.path = OwnProgram(),
       .arguments = {"coordinator", "--listen", "127.0.0.1:0", "--state", state_directory},
       .stdout_fd = out[1],
       .stderr_fd = log});
  ::close(out[1]);
  ::close(log);
  if (pid.ok()) coordinator_.pid = *pid;
  Result<std::string> address =
      pid.ok() ? ReadAddress(out[0], stop_asked) : Result<std::string>(std::move(pid).error());
  ::close(out[0]);
  return address;
}

Status LocalCluster::StartAgent(int slots) {
  ASSIGN_OR_RETURN(const int log, OpenLog(agent_.log));
  auto pid =
      StartProgram({.path = OwnProgram(),
                    .arguments = {"worker", "--join", address_, "--slots", std::to_string(slots)},
                    .stdout_fd = log,
                    .stderr_fd = log});
  ::close(log);
  if (!pid.ok()) return std::move(pid).error();
  agent_.pid = *pid;
  return {};
}

// ---- while they run --------------------------------------------------------------------------

void LocalCluster::Signal(const Daemon& daemon, int signal) {
  const std::lock_guard lock(mutex_);
  if (daemon.pid > 0) ::kill(daemon.pid, signal);
}

bool LocalCluster::Reap(Daemon& daemon) {
  if (daemon.pid > 0 && ::waitpid(daemon.pid, &daemon.status, WNOHANG) == daemon.pid) {
    daemon.pid = -1;
    daemon.ended = true;
  }
  return daemon.pid < 0;
}

bool LocalCluster::HasEnded(Daemon& daemon) {
  const std::lock_guard lock(mutex_);
  Reap(daemon);
  return daemon.ended;
}

std::string LocalCluster::EndOf(Daemon& daemon) {
  if (!HasEnded(daemon)) return "";  // from then on nothing of it changes
  const std::string how = WIFSIGNALED(daemon.status)
                              ? fmt::format("was killed by {}", SignalName(WTERMSIG(daemon.status)))
                              : fmt::format("exited with {}", WEXITSTATUS(daemon.status));
  const std::string last = LastLine(daemon.log);
  return fmt::format("the {} of this run {}{}", daemon.name, how,
                     last.empty() ? "" : fmt::format("; {} ends with: {}", daemon.log, last));
}

void LocalCluster::Pause() {
  Signal(agent_, SIGTSTP);
  // One that was told to go on before it had stopped would stop for ever.
  Wait(kPauseMs, [this] {
    const std::lock_guard lock(mutex_);
    return Reap(agent_) || IsStopped(agent_.pid);
  });
  Signal(coordinator_, SIGSTOP);
}

void LocalCluster::Resume() {
  Signal(coordinator_, SIGCONT);
  Signal(agent_, SIGCONT);
}

// ---- ending ----------------------------------------------------------------------------------

void LocalCluster::Stop() {
  const auto both_gone = [this] {
    const std::lock_guard lock(mutex_);
    const bool agent_gone = Reap(agent_);
    return Reap(coordinator_) && agent_gone;
  };
  Signal(agent_, SIGTERM);
  Signal(coordinator_, SIGTERM);
  if (Wait(kStopMs, both_gone)) return;
  Kill();
  Wait(kKillMs, both_gone);
}

void LocalCluster::Kill() {
  Signal(agent_, SIGKILL);
  Signal(coordinator_, SIGKILL);
}

LocalCluster::~LocalCluster() { Stop(); }

}  // namespace troupe
