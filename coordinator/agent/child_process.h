// ChildProcess: starts a program and learns how it ended. The child gets a process group of its own
// (a terminal's Ctrl-C reaches only its parent), dies with the thread that started it, and inherits
// nothing but what is named here.
// Thread: the scheduler's, which must be the thread that calls Start.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "runtime/actor/scheduler.h"
#include "runtime/base/result.h"

namespace troupe {

struct ProgramStart {
  std::string path{};
  std::vector<std::string> arguments{};  // after the program's name
  int control_fd = -1;                   // becomes descriptor 3 of the child
  int stdout_fd = -1;                    // -1: the parent's
  int stderr_fd = -1;
  // Ignores what asks a program to stop or to pause: whoever signals all processes of a machine or
  // a job means its parent, which decides.
  bool minds_parent_only = false;
};
// fork and exec. All signals are unblocked in the child.
Result<pid_t> StartProgram(const ProgramStart& start);

// Whether a signal, or a tracer, holds the process; one that has gone is not stopped.
bool IsStopped(pid_t pid);

struct ExitReport {
  int exit_code = 0;  // when signal is 0
  int signal = 0;
};

class ChildProcess {
 public:
  // `on_exit` is called once, from the scheduler; the child is reaped by then.
  static Result<std::unique_ptr<ChildProcess>> Start(Scheduler& scheduler,
                                                     const ProgramStart& start,
                                                     std::function<void(ExitReport)> on_exit);
  // Kills a child that still runs, and reaps it.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void Signal(int signal);
  pid_t pid() const { return pid_; }

 private:
  ChildProcess(Scheduler& scheduler, pid_t pid, int pidfd, std::function<void(ExitReport)> on_exit);
  int Reap();

  Scheduler& scheduler_;
  const pid_t pid_;
  const int pidfd_;
  std::function<void(ExitReport)> on_exit_;
  PollerId poller_;
  bool exited_ = false;
};

}  // namespace troupe
