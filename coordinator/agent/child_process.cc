#include "coordinator/agent/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <utility>

namespace troupe {
namespace {

constexpr int kControlFd = 3;

// Runs in the child between fork and exec: only async-signal-safe calls.
[[noreturn]] void BecomeProgram(const ProgramStart& start, char* const* argv, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // the parent died before the call above
  if (start.minds_parent_only) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGTSTP}) ::signal(signal, SIG_IGN);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (start.stdout_fd >= 0) ::dup2(start.stdout_fd, 1);
  if (start.stderr_fd >= 0) ::dup2(start.stderr_fd, 2);
  if (start.control_fd == kControlFd) {
    ::fcntl(kControlFd, F_SETFD, 0);
  } else if (start.control_fd >= 0) {
    ::dup2(start.control_fd, kControlFd);
  }
  const int first_closed = start.control_fd >= 0 ? kControlFd + 1 : kControlFd;
  ::syscall(SYS_close_range, first_closed, ~0U, 0);
  ::execv(argv[0], argv);
  ::_exit(127);
}

int PidFd(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

}  // namespace

bool IsStopped(pid_t pid) {
  std::string line;
  std::getline(std::ifstream(fmt::format("/proc/{}/stat", pid)), line);
  const size_t name_end = line.rfind(") ");  // the state stands behind the program's name
  return name_end != std::string::npos && (line[name_end + 2] == 'T' || line[name_end + 2] == 't');
}

Result<pid_t> StartProgram(const ProgramStart& start) {
  if (::access(start.path.c_str(), X_OK) != 0) {
    return MakeError(ErrorCode::kNotFound, "{} cannot be run: {}: build it with ./run build",
                     start.path, std::strerror(errno));
  }
  std::vector<std::string> words = {start.path};
  words.insert(words.end(), start.arguments.begin(), start.arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) BecomeProgram(start, argv.data(), parent);
  if (pid < 0) {
    return MakeError(ErrorCode::kIo, "{} cannot be started: {}", start.path, std::strerror(errno));
  }
  return pid;
}

Result<std::unique_ptr<ChildProcess>> ChildProcess::Start(Scheduler& scheduler,
                                                          const ProgramStart& start,
                                                          std::function<void(ExitReport)> on_exit) {
  ASSIGN_OR_RETURN(const pid_t pid, StartProgram(start));
  const int pidfd = PidFd(pid);
  if (pidfd < 0) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return MakeError(ErrorCode::kIo, "{} cannot be watched: {}", start.path, std::strerror(errno));
  }
  ::fcntl(pidfd, F_SETFD, FD_CLOEXEC);
  return std::unique_ptr<ChildProcess>(new ChildProcess(scheduler, pid, pidfd, std::move(on_exit)));
}

ChildProcess::ChildProcess(Scheduler& scheduler, pid_t pid, int pidfd,
                           std::function<void(ExitReport)> on_exit)
    : scheduler_(scheduler), pid_(pid), pidfd_(pidfd), on_exit_(std::move(on_exit)) {
  poller_ = scheduler_.AddPoller([this] { return Reap(); }, pidfd_, [] { return true; });
}

ChildProcess::~ChildProcess() {
  if (!exited_) {
    scheduler_.RemovePoller(poller_);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(pidfd_);
}

void ChildProcess::Signal(int signal) {
  if (!exited_) ::kill(pid_, signal);
}

int ChildProcess::Reap() {
  if (exited_) return 0;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return 0;
  exited_ = true;
  scheduler_.RemovePoller(poller_);
  ExitReport report;
  if (WIFSIGNALED(status)) {
    report.signal = WTERMSIG(status);
  } else {
    report.exit_code = WEXITSTATUS(status);
  }
  // A callback may destroy this.
  const auto on_exit = std::move(on_exit_);
  on_exit(report);
  return 1;
}

}  // namespace troupe
