#include "actors/control_link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace troupe {
namespace {

constexpr size_t kLengthBytes = 4;

uint32_t ReadLength(const char* bytes) {
  uint32_t length = 0;
  for (int i = 3; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(bytes[i]);
  return length;
}

void AppendLength(std::string& out, uint32_t length) {
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<char>(length >> (8 * i) & 0xff));
}

}  // namespace

ControlLink::ControlLink(Scheduler& scheduler, int fd, Handlers handlers)
    : scheduler_(scheduler), fd_(fd), handlers_(std::move(handlers)) {
  ::fcntl(fd_, F_SETFL, ::fcntl(fd_, F_GETFL) | O_NONBLOCK);
  ::fcntl(fd_, F_SETFD, FD_CLOEXEC);
  poller_ = scheduler_.AddPoller([this] { return Progress(); }, fd_, [] { return true; });
}

ControlLink::~ControlLink() {
  if (!closed_) scheduler_.RemovePoller(poller_);
  ::close(fd_);
}

int ControlLink::Progress() {
  if (closed_) return 0;
  char chunk[16384];
  int events = 0;
  for (;;) {
    const ssize_t got = ::recv(fd_, chunk, sizeof(chunk), 0);
    if (got > 0) {
      incoming_.append(chunk, static_cast<size_t>(got));
      ++events;
      if (!TakeFrames()) return events;
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return events;
    Close(MakeError(ErrorCode::kPeerDown, "the host agent has gone"));
    return events + 1;
  }
}

bool ControlLink::TakeFrames() {
  size_t used = 0;
  while (!closed_ && incoming_.size() - used >= kLengthBytes) {
    const uint32_t length = ReadLength(incoming_.data() + used);
    if (length > kFrameBytesMax) {  // L1
      Close(MakeError(ErrorCode::kCorrupt, "an order of {} bytes exceeds {}", length,
                      kFrameBytesMax));
      return false;
    }
    if (incoming_.size() - used - kLengthBytes < length) break;
    proto::ToRank order;
    if (!order.ParseFromArray(incoming_.data() + used + kLengthBytes, static_cast<int>(length))) {
      Close(MakeError(ErrorCode::kCorrupt, "an order of {} bytes does not parse", length));
      return false;
    }
    used += kLengthBytes + length;
    handlers_.on_order(std::move(order));
  }
  incoming_.erase(0, used);
  return !closed_;
}

void ControlLink::Send(const proto::FromRank& news) {
  if (closed_) return;
  AppendLength(outgoing_, static_cast<uint32_t>(news.ByteSizeLong()));
  news.AppendToString(&outgoing_);
  Write();
}

void ControlLink::SendTelemetry(const proto::FromRank& news) {
  if (outgoing_.size() - written_ > kBacklogBytesMax) {
    ++dropped_;
    return;
  }
  Send(news);
}

void ControlLink::Write() {
  while (written_ < outgoing_.size()) {
    const ssize_t put =
        ::send(fd_, outgoing_.data() + written_, outgoing_.size() - written_, MSG_NOSIGNAL);
    if (put >= 0) {
      written_ += static_cast<size_t>(put);
      continue;
    }
    if (errno == EINTR) continue;
    // Progress finds out when the agent has gone; until then look again soon.
    if ((errno == EAGAIN || errno == EWOULDBLOCK) && !retry_armed_) {
      retry_armed_ = true;
      scheduler_.After(1, [this] {
        retry_armed_ = false;
        Write();
      });
    }
    return;
  }
  outgoing_.clear();
  written_ = 0;
}

void ControlLink::Drain(int timeout_ms) {
  const int64_t end_ns = scheduler_.clock().NowNs() + int64_t{timeout_ms} * 1'000'000;
  Write();
  while (!closed_ && written_ < outgoing_.size() && scheduler_.clock().NowNs() < end_ns) {
    pollfd waiting{.fd = fd_, .events = POLLOUT, .revents = 0};
    if (::poll(&waiting, 1, 10) > 0 && (waiting.revents & (POLLERR | POLLHUP)) != 0) return;
    Write();
  }
}

void ControlLink::Close(Error cause) {
  closed_ = true;
  scheduler_.RemovePoller(poller_);
  handlers_.on_closed(std::move(cause));
}

}  // namespace troupe
