#include "runtime/transport/ucx/ucx_worker.h"

#include <fmt/format.h>
#include <ucs/config/global_opts.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "runtime/transport/ucx/nameless_memory.h"

namespace troupe {
namespace {

struct Setting {
  const char* name;
  const char* value;
};

// System V segments outlive a kill; CMA is dropped by peer error handling anyway.
constexpr char kTransports[] = "^sysv,cma";

// UCX 1.13, each found by measurement.
constexpr Setting kSettings[] = {
    {"TLS", kTransports},
    // Without it peer error handling silently drops shared memory and uses TCP.
    {"POSIX_ERROR_HANDLING", "y"},
    // An envelope and a small payload go inline: no second cache miss for a descriptor.
    {"POSIX_FIFO_ELEM_SIZE", "320"},
    {"POSIX_FIFO_SIZE", "256"},
    // UCX believes loopback has 11.9 MB/s and would choose by that.
    {"RNDV_THRESH", "16k"},
    {"KEEPALIVE_INTERVAL", "100ms"},
    {"TCP_KEEPIDLE", "1s"},
    {"TCP_KEEPINTVL", "1s"},
    // One lane, so that active messages of an endpoint stay in order.
    {"MAX_EAGER_RAILS", "1"},
};

// What a cluster's modules set for cards that this machine may not have.
constexpr const char* kLimits[] = {"UCX_TLS", "UCX_NET_DEVICES", "UCX_SHM_DEVICES"};

// "UCX_TLS=rc and UCX_NET_DEVICES=mlx5_0:1", as the environment has them; empty: it has none.
std::string LimitsInWords() {
  std::string words;
  for (const char* name : kLimits) {
    const char* value = std::getenv(name);
    if (value == nullptr || std::string_view(value) == kTransports) continue;
    words += fmt::format("{}{}={}", words.empty() ? "" : " and ", name, value);
  }
  return words;
}

Error UcxError(const char* what, ucs_status_t status) {
  return MakeError(ErrorCode::kFailed, "UCX: {}: {}", what, ucs_status_string(status));
}

void IgnoreError(void*, ucp_ep_h, ucs_status_t) {}

ucs_status_t NewEndpoint(ucp_worker_h worker, const void* address, ucp_err_handler_cb_t on_error,
                         void* argument, ucp_ep_h* endpoint) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = static_cast<const ucp_address_t*>(address);
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler = {on_error, argument};
  return ucp_ep_create(worker, &params, endpoint);
}

Result<ucp_context_h> NewContext() {
  // UCX logs to stdout, which is for data; what it would say reaches people as our errors.
  if (std::getenv("UCX_LOG_LEVEL") == nullptr) ucs_global_opts_set_value("LOG_LEVEL", "fatal");
  // Through the environment: ucp_config_modify accepts a transport's own keys and drops them.
  for (const Setting& setting : kSettings) {
    setenv((std::string("UCX_") + setting.name).c_str(), setting.value, /*overwrite=*/0);
  }
  ucp_config_t* config = nullptr;
  if (auto status = ucp_config_read(nullptr, nullptr, &config); status != UCS_OK) {
    return UcxError("reading its configuration failed", status);
  }
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  const ucs_status_t status = ucp_init(&params, config, &context);
  ucp_config_release(config);
  if (status != UCS_OK) return UcxError("no transport could be opened", status);
  return context;
}

}  // namespace

Result<UcxWorker> UcxWorker::Create(const std::function<void(const std::string&)>& warn) {
  UseNamelessMemory();
  const std::string limits = LimitsInWords();
  Result<UcxWorker> made = Open();
  if (limits.empty() || (made.ok() && made->ReachesAnother())) return made;
  warn(
      fmt::format("{} of the environment: no way from one process of this host to another is left, "
                  "so it is ignored: unset it, or name what this host has (ucx_info -d lists it)",
                  limits));
  for (const char* name : kLimits) unsetenv(name);
  return Open();
}

// Whether there is a transport to another worker of this host.
bool UcxWorker::ReachesAnother() const {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucp_worker_h other = nullptr;
  if (ucp_worker_create(context_, &params, &other) != UCS_OK) return false;
  bool reaches = false;
  ucp_address_t* address = nullptr;
  size_t num_bytes = 0;
  if (ucp_worker_get_address(other, &address, &num_bytes) == UCS_OK) {
    ucp_ep_h endpoint = nullptr;
    reaches = NewEndpoint(worker_, address, &IgnoreError, nullptr, &endpoint) == UCS_OK;
    if (reaches) {
      ucp_request_param_t force{};
      force.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
      force.flags = UCP_EP_CLOSE_FLAG_FORCE;
      const ucs_status_ptr_t closing = ucp_ep_close_nbx(endpoint, &force);
      while (UCS_PTR_IS_PTR(closing) && ucp_request_check_status(closing) == UCS_INPROGRESS) {
        ucp_worker_progress(worker_);
      }
      if (UCS_PTR_IS_PTR(closing)) ucp_request_free(closing);
    }
    ucp_worker_release_address(other, address);
  }
  ucp_worker_destroy(other);
  return reaches;
}

Result<UcxWorker> UcxWorker::Open() {
  UcxWorker made;
  ASSIGN_OR_RETURN(made.context_, NewContext());
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  if (auto status = ucp_worker_create(made.context_, &params, &made.worker_); status != UCS_OK) {
    return UcxError("creating the worker failed", status);
  }
  if (auto status = ucp_worker_get_efd(made.worker_, &made.event_fd_); status != UCS_OK) {
    return UcxError("the worker has no event descriptor", status);
  }
  ucp_worker_attr_t attributes{};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS | UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER;
  if (auto status = ucp_worker_query(made.worker_, &attributes); status != UCS_OK) {
    return UcxError("the worker has no address", status);
  }
  made.max_header_bytes_ = attributes.max_am_header;
  made.address_.assign(reinterpret_cast<const char*>(attributes.address),
                       attributes.address_length);
  ucp_worker_release_address(made.worker_, attributes.address);
  return made;
}

UcxWorker& UcxWorker::operator=(UcxWorker&& other) noexcept {
  if (this != &other) {
    Destroy();
    context_ = std::exchange(other.context_, nullptr);
    worker_ = std::exchange(other.worker_, nullptr);
    address_ = std::move(other.address_);
    event_fd_ = std::exchange(other.event_fd_, -1);
    max_header_bytes_ = other.max_header_bytes_;
  }
  return *this;
}

void UcxWorker::Destroy() {
  if (auto worker = std::exchange(worker_, nullptr)) ucp_worker_destroy(worker);
  if (auto context = std::exchange(context_, nullptr)) ucp_cleanup(context);
  event_fd_ = -1;
}

Status UcxWorker::Handle(unsigned id, ucp_am_recv_callback_t callback, void* argument) {
  ucp_am_handler_param_t param{};
  param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                     UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  param.id = id;
  param.flags = UCP_AM_FLAG_WHOLE_MSG;
  param.cb = callback;
  param.arg = argument;
  if (auto status = ucp_worker_set_am_recv_handler(worker_, &param); status != UCS_OK) {
    return UcxError("registering a message handler failed", status);
  }
  return {};
}

Result<ucp_ep_h> UcxWorker::Connect(const std::string& worker_address,
                                    ucp_err_handler_cb_t on_error, void* argument) {
  ucp_ep_h endpoint = nullptr;
  const ucs_status_t status =
      NewEndpoint(worker_, worker_address.data(), on_error, argument, &endpoint);
  if (status == UCS_OK) return endpoint;
  const std::string limits = LimitsInWords();
  if (status != UCS_ERR_UNREACHABLE || limits.empty()) {
    return MakeError(ErrorCode::kPeerDown, "connecting failed: {}", ucs_status_string(status));
  }
  return MakeError(ErrorCode::kInvalidSpec,
                   "UCX has no transport between them with {} in the environment: unset it, or "
                   "name what both hosts have",
                   limits);
}

std::string MessageDevice(ucp_ep_h endpoint) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* stream = open_memstream(&text, &size);
  if (stream == nullptr) return {};
  ucp_ep_print_info(endpoint, stream);
  std::fclose(stream);
  const std::string info(text, size);
  std::free(text);
  // "#  lane[0]:  2:posix/memory.0 md[1]  -> md[1]/posix/sysdev[255] am am_bw#0": UCX 1.13 offers
  // no other way to ask.
  for (size_t line = info.find("lane["); line != std::string::npos;
       line = info.find("lane[", line + 1)) {
    const std::string_view words =
        std::string_view(info).substr(line, info.find('\n', line) - line);
    const size_t slash = words.find('/');
    const size_t dot = words.find('.', slash);
    const size_t name = words.substr(0, slash).rfind(':');
    const bool carries_messages =
        words.find(" am ") != std::string_view::npos || words.ends_with(" am");
    if (!carries_messages || slash == std::string_view::npos || dot == std::string_view::npos ||
        name == std::string_view::npos) {
      continue;
    }
    return std::string(words.substr(name + 1, dot - name - 1));
  }
  return {};
}

Lane LaneOfDevice(std::string_view device) {
  if (device.starts_with("posix") || device.starts_with("self") || device.starts_with("sysv")) {
    return Lane::kSharedMemory;
  }
  for (const std::string_view name : {"rc", "ud", "dc"}) {
    if (device.starts_with(name)) return Lane::kRdma;
  }
  return Lane::kTcp;
}

}  // namespace troupe
