#include "runtime/transport/ucx/ucx_worker.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace troupe {
namespace {

constexpr int kTickMs = 100;
constexpr size_t kSealBytes = sizeof(uint64_t);

// Under peer error handling UCX 1.13 drops shared memory unless told otherwise.
constexpr std::pair<const char*, const char*> kDefaults[] = {
    {"UCX_RNDV_THRESH", "65536"},
    {"UCX_KEEPALIVE_INTERVAL", "500ms"},
    {"UCX_TCP_KEEPIDLE", "1s"},
    {"UCX_TCP_KEEPINTVL", "1s"},
};

Status Check(std::string_view what, ucs_status_t status) {
  if (status == UCS_OK) return {};
  return MakeError(ErrorCode::kUnavailable, "{}", UcxSentence(what, status));
}

void WatchForReading(int epoll_fd, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  ::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

std::string SealAddress(const std::string& address) {
  const uint64_t hash = XXH64(address.data(), address.size(), 0);
  std::string sealed(kSealBytes, '\0');
  std::memcpy(sealed.data(), &hash, kSealBytes);
  return sealed + address;
}

std::string_view UnsealAddress(std::string_view sealed) {
  if (sealed.size() <= kSealBytes) return {};
  const std::string_view address = sealed.substr(kSealBytes);
  uint64_t hash = 0;
  std::memcpy(&hash, sealed.data(), kSealBytes);
  return hash == XXH64(address.data(), address.size(), 0) ? address : std::string_view();
}

std::string UcxSentence(std::string_view what, ucs_status_t status) {
  return fmt::format("UCX: {}: {}", what, ucs_status_string(status));
}

Result<std::unique_ptr<UcxWorker>> UcxWorker::Create() {
  auto worker = std::unique_ptr<UcxWorker>(new UcxWorker());
  RETURN_IF_ERROR(worker->Open());
  return worker;
}

Status UcxWorker::Open() {
  for (const auto& [name, value] : kDefaults) ::setenv(name, value, /*overwrite=*/0);
  ucp_config_t* config = nullptr;
  RETURN_IF_ERROR(Check("reading its configuration", ucp_config_read(nullptr, nullptr, &config)));
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  const ucs_status_t opened = ucp_init(&params, config, &context_);
  ucp_config_release(config);
  RETURN_IF_ERROR(Check("opening a context", opened));
  ucp_worker_params_t worker_params{};
  worker_params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker_params.thread_mode = UCS_THREAD_MODE_SINGLE;
  RETURN_IF_ERROR(Check("opening a worker", ucp_worker_create(context_, &worker_params, &worker_)));
  ucp_address_t* address = nullptr;
  size_t address_bytes = 0;
  RETURN_IF_ERROR(Check("its address", ucp_worker_get_address(worker_, &address, &address_bytes)));
  address_.assign(reinterpret_cast<const char*>(address), address_bytes);
  ucp_worker_release_address(worker_, address);
  int fd = -1;
  RETURN_IF_ERROR(Check("its event descriptor", ucp_worker_get_efd(worker_, &fd)));
  epoll_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
  timer_fd_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (epoll_fd_ < 0 || timer_fd_ < 0) {
    return MakeError(ErrorCode::kResourceExhausted, "no descriptor is left for the transport");
  }
  itimerspec tick{};
  tick.it_interval.tv_nsec = tick.it_value.tv_nsec = int64_t{kTickMs} * 1'000'000;
  ::timerfd_settime(timer_fd_, 0, &tick, nullptr);
  WatchForReading(epoll_fd_, fd);
  WatchForReading(epoll_fd_, timer_fd_);
  return {};
}

UcxWorker::~UcxWorker() {
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
  if (epoll_fd_ >= 0) ::close(epoll_fd_);
  if (timer_fd_ >= 0) ::close(timer_fd_);
}

bool UcxWorker::Arm() {
  uint64_t ticks = 0;
  [[maybe_unused]] const ssize_t got = ::read(timer_fd_, &ticks, sizeof(ticks));
  return ucp_worker_arm(worker_) == UCS_OK;
}

Lane LaneOf(ucp_ep_h endpoint) {
  char* text = nullptr;
  size_t text_bytes = 0;
  std::FILE* stream = ::open_memstream(&text, &text_bytes);
  if (stream == nullptr) return Lane::kTcp;
  ucp_ep_print_info(endpoint, stream);
  std::fclose(stream);
  const std::string info(text, text_bytes);
  std::free(text);
  // "lane[0]:  2:posix/memory.0 md[1] … am am_bw#0": the lane that carries active messages.
  for (size_t at = info.find("lane["); at != std::string::npos; at = info.find("lane[", at + 1)) {
    const std::string line = info.substr(at, info.find('\n', at) - at);
    if (line.find(" am") == std::string::npos) continue;
    for (const char* shared : {"posix/", "sysv/", "xpmem/", "self/", "cma/"}) {
      if (line.find(shared) != std::string::npos) return Lane::kSharedMemory;
    }
    if (line.find("tcp/") != std::string::npos) return Lane::kTcp;
    return Lane::kRdma;
  }
  return Lane::kTcp;
}

}  // namespace troupe
