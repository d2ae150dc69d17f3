#include "coordinator/cli/local_cluster.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "coordinator/agent/child_process.h"
#include "runtime/base/file_system.h"

namespace troupe {
namespace {

constexpr int kStartMs = 10'000;
constexpr int kStopMs = 3000;
constexpr std::string_view kGreeting = "listening on ";

std::string OwnProgram() {
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).string();
}

int OpenLog(const std::string& path) {
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

// The address in the coordinator's first line.
Result<std::string> ReadAddress(int fd) {
  std::string line;
  for (;;) {
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, kStartMs) <= 0) {
      return MakeError(ErrorCode::kUnavailable, "the coordinator did not start within {} ms",
                       kStartMs);
    }
    char c = 0;
    if (::read(fd, &c, 1) != 1) {
      return MakeError(ErrorCode::kUnavailable, "the coordinator ended at its start");
    }
    if (c == '\n') break;
    line += c;
  }
  const size_t at = line.find(kGreeting);
  if (at == std::string::npos) {
    return MakeError(ErrorCode::kUnavailable, "the coordinator said: {}", line);
  }
  return line.substr(at + kGreeting.size());
}

void StopChild(pid_t pid) {
  if (pid <= 0) return;
  ::kill(pid, SIGTERM);
  for (int waited_ms = 0; waited_ms < kStopMs; waited_ms += 5) {
    if (::waitpid(pid, nullptr, WNOHANG) == pid) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

}  // namespace

Result<std::unique_ptr<LocalCluster>> LocalCluster::Start(const std::string& state_directory,
                                                          const std::string& log_directory,
                                                          int slots) {
  RETURN_IF_ERROR(SystemFiles().CreateDirectories(log_directory));
  auto cluster = std::unique_ptr<LocalCluster>(new LocalCluster());
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) {
    return MakeError(ErrorCode::kResourceExhausted, "no pipe: {}", std::strerror(errno));
  }
  const int coordinator_log = OpenLog(JoinPath(log_directory, "coordinator.log"));
  auto coordinator = StartProgram(
      {.path = OwnProgram(),
       .arguments = {"coordinator", "--listen", "127.0.0.1:0", "--state", state_directory},
       .stdout_fd = out[1],
       .stderr_fd = coordinator_log});
  ::close(out[1]);
  ::close(coordinator_log);
  if (coordinator.ok()) cluster->coordinator_ = *coordinator;
  auto address = coordinator.ok() ? ReadAddress(out[0]) : std::move(coordinator).error();
  ::close(out[0]);
  if (!address.ok()) return std::move(address).error();
  cluster->address_ = *std::move(address);
  const int agent_log = OpenLog(JoinPath(log_directory, "agent.log"));
  auto agent = StartProgram(
      {.path = OwnProgram(),
       .arguments = {"worker", "--join", cluster->address_, "--slots", std::to_string(slots)},
       .stdout_fd = agent_log,
       .stderr_fd = agent_log});
  ::close(agent_log);
  if (!agent.ok()) return std::move(agent).error();
  cluster->agent_ = *agent;
  return cluster;
}

LocalCluster::~LocalCluster() {
  StopChild(agent_);
  StopChild(coordinator_);
}

}  // namespace troupe
