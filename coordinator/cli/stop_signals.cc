#include "coordinator/cli/stop_signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

namespace troupe {
namespace {

bool IsIgnored(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

sigset_t Signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  // Not asked of SIGINT: scripts start what is in their background with it ignored.
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) ::sigaddset(&signals, signal);
  if (!IsIgnored(SIGHUP)) ::sigaddset(&signals, SIGHUP);
  return signals;
}

}  // namespace

void BlockStopSignals() {
  const sigset_t signals = Signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

StopSignals::StopSignals(bool pauses) {
  sigset_t signals = Signals();
  if (pauses && !IsIgnored(SIGTSTP)) ::sigaddset(&signals, SIGTSTP);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  fd_ = ::signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
}

StopSignals::~StopSignals() {
  if (fd_ >= 0) ::close(fd_);
}

int StopSignals::Take() {
  signalfd_siginfo info;
  return ::read(fd_, &info, sizeof(info)) == sizeof(info) ? static_cast<int>(info.ssi_signo) : 0;
}

bool IsPreemption(int signal) { return signal == SIGTERM || signal == SIGUSR1; }

}  // namespace troupe
