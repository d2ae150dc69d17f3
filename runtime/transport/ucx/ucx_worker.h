// One UCX context and worker, with the settings that Troupe's links need. Everything of UCX's C
// interface that is not an endpoint or a message ends here.
#pragma once

#include <ucp/api/ucp.h>

#include <functional>
#include <string>

#include "runtime/base/result.h"
#include "runtime/transport/transport.h"

namespace troupe {

class UcxWorker {
 public:
  // A UCX_… variable of the environment wins over the setting of the same name here, unless it
  // leaves no way to any other process of this host: such a one is ignored, with a warning.
  static Result<UcxWorker> Create(const std::function<void(const std::string&)>& warn =
                                      [](const std::string&) {});

  UcxWorker() = default;
  UcxWorker(UcxWorker&& other) noexcept { *this = std::move(other); }
  UcxWorker& operator=(UcxWorker&& other) noexcept;
  ~UcxWorker() { Destroy(); }

  Status Handle(unsigned id, ucp_am_recv_callback_t callback, void* argument);
  // kPeerDown, since the peer's end is the likely cause; kInvalidSpec where it may be the settings
  // of the environment.
  Result<ucp_ep_h> Connect(const std::string& worker_address, ucp_err_handler_cb_t on_error,
                           void* argument);

  ucp_worker_h get() const { return worker_; }
  const std::string& address() const { return address_; }
  int event_fd() const { return event_fd_; }
  size_t max_header_bytes() const { return max_header_bytes_; }
  // Work that arrives from now on makes event_fd readable; false if some is there already.
  bool Arm() const { return ucp_worker_arm(worker_) == UCS_OK; }
  void Destroy();

 private:
  static Result<UcxWorker> Open();
  bool ReachesAnother() const;

  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  std::string address_{};
  int event_fd_ = -1;
  size_t max_header_bytes_ = 0;
};

// UCX's own description of an endpoint, such as "posix/memory" or "tcp/eth0": what carries its
// active messages. Empty while it has none.
std::string MessageDevice(ucp_ep_h endpoint);
Lane LaneOfDevice(std::string_view device);

}  // namespace troupe
