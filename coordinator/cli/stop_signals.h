// The signals that ask a program of ours to stop, read from a descriptor instead of by handlers:
// SIGINT and SIGHUP are a person's (Ctrl-C, a closed terminal), SIGTERM and SIGUSR1 the machine's
// (scancel, systemd, a container's stop; a warning before preemption). SIGTSTP is a pause (Ctrl-Z).
#pragma once

#include <csignal>

namespace troupe {

// Blocks them in the calling thread and in every thread that it starts: they wait until StopSignals
// takes them. The first thing that a program does which must not end by them. Not SIGHUP where it
// was ignored at the start, as nohup does, and not SIGTSTP.
void BlockStopSignals();

// Blocks them too, and SIGTSTP with `pauses`: made before any other thread.
class StopSignals {
 public:
  explicit StopSignals(bool pauses);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  int fd() const { return fd_; }  // readable while a signal waits
  int Take();                     // the oldest that waits; 0: none

 private:
  int fd_ = -1;
};

// Whether it is the machine's wish, which preempts a job, not a person's, which cancels it.
bool IsPreemption(int signal);

}  // namespace troupe
