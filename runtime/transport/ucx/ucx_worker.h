// UcxWorker: the part of UCX that a transport owns: context, worker, event descriptor. One a
// process' rank; single-threaded.
#pragma once

#include <ucp/api/ucp.h>

#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/result.h"
#include "runtime/transport/transport.h"

namespace troupe {

class UcxWorker {
 public:
  // Sets the UCX_… variables that the user has not set: shared memory under peer error handling,
  // and an explicit rendezvous threshold, since UCX knows loopback's and veth's speeds wrongly.
  // What UCX reads when it is loaded (UCX_LOG_LEVEL, UCX_WARN_UNUSED_ENV_VARS) its process must be
  // started with.
  static Result<std::unique_ptr<UcxWorker>> Create();
  ~UcxWorker();
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;

  ucp_worker_h handle() const { return worker_; }
  const std::string& address() const { return address_; }
  // Readable when there may be work, and every tick_ms for the transport's own liveness check.
  int event_fd() const { return epoll_fd_; }
  // False: there is work already.
  bool Arm();

 private:
  UcxWorker() = default;
  Status Open();

  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  std::string address_{};
  int epoll_fd_ = -1;
  int timer_fd_ = -1;
};

// UCX ends the process over an address that is none, so ours are sealed: xxh64 of UCX's address,
// then that address. Unsealing gives an empty view where the seal does not fit.
std::string SealAddress(const std::string& address);
std::string_view UnsealAddress(std::string_view sealed);

std::string UcxSentence(std::string_view what, ucs_status_t status);

// How the endpoint carries messages, read from what UCX prints about it.
Lane LaneOf(ucp_ep_h endpoint);

}  // namespace troupe
