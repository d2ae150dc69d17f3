// What ends the sleep of a rank that waits for its peers: UCX's own descriptor, a tick for the
// liveness check, and the end of processes of this host.
#pragma once

#include <cstdint>

#include "runtime/base/result.h"

namespace troupe {

// Names the kernel and the process namespace: where it is equal, a process id means the same.
uint64_t LocalHostKey();

class UcxWakeup {
 public:
  UcxWakeup() = default;
  UcxWakeup(const UcxWakeup&) = delete;
  UcxWakeup& operator=(const UcxWakeup&) = delete;
  ~UcxWakeup();

  // Readable when `event_fd` is, every tick_ms, and when a watched process has ended.
  Status Open(int event_fd, int tick_ms);
  int fd() const { return epoll_fd_; }
  // Makes fd() quiet until the next tick.
  void TakeTick() const;

  // A descriptor that tells when the process ends, or -1 where it cannot be watched (then silence
  // must tell). The caller gives it back to Unwatch.
  int WatchProcess(int process_id) const;
  static bool HasEnded(int process_fd);
  void Unwatch(int process_fd) const;

 private:
  int epoll_fd_ = -1;
  int timer_fd_ = -1;
};

}  // namespace troupe
