#include "runtime/transport/ucx/ucx_wakeup.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

namespace troupe {
namespace {

bool Watch(int epoll_fd, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

uint64_t LocalHostKey() {
  std::string key;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), key);
  struct stat process_namespace {};
  if (stat("/proc/self/ns/pid", &process_namespace) != 0 || key.empty()) return 0;
  key += std::to_string(process_namespace.st_ino);
  return XXH64(key.data(), key.size(), 0);
}

UcxWakeup::~UcxWakeup() {
  if (timer_fd_ >= 0) close(timer_fd_);
  if (epoll_fd_ >= 0) close(epoll_fd_);
}

Status UcxWakeup::Open(int event_fd, int tick_ms) {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  itimerspec tick{};
  tick.it_interval = {.tv_sec = tick_ms / 1000, .tv_nsec = int64_t{tick_ms % 1000} * 1'000'000};
  tick.it_value = tick.it_interval;
  if (epoll_fd_ < 0 || timer_fd_ < 0 || timerfd_settime(timer_fd_, 0, &tick, nullptr) != 0 ||
      !Watch(epoll_fd_, event_fd) || !Watch(epoll_fd_, timer_fd_)) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "transport: no descriptor to sleep on: {}; raise `ulimit -n`",
                     std::strerror(errno));
  }
  return {};
}

void UcxWakeup::TakeTick() const {
  uint64_t ticks = 0;
  [[maybe_unused]] const ssize_t got = read(timer_fd_, &ticks, sizeof(ticks));
}

int UcxWakeup::WatchProcess(int process_id) const {
  const auto fd = static_cast<int>(syscall(SYS_pidfd_open, process_id, 0));
  if (fd >= 0) Watch(epoll_fd_, fd);
  return fd;
}

bool UcxWakeup::HasEnded(int process_fd) {
  pollfd ended{.fd = process_fd, .events = POLLIN, .revents = 0};
  return poll(&ended, 1, 0) == 1;
}

void UcxWakeup::Unwatch(int process_fd) const {
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, process_fd, nullptr);
  close(process_fd);
}

}  // namespace troupe
