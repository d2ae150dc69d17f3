#include "runtime/actor/frame_link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
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

FrameLink::FrameLink(Scheduler& scheduler, int fd, Handlers handlers)
    : scheduler_(scheduler), fd_(fd), handlers_(std::move(handlers)) {
  ::fcntl(fd_, F_SETFL, ::fcntl(fd_, F_GETFL) | O_NONBLOCK);
  ::fcntl(fd_, F_SETFD, FD_CLOEXEC);
  poller_ = scheduler_.AddPoller([this] { return Progress(); }, fd_, [] { return true; });
}

FrameLink::~FrameLink() { Close(); }

void FrameLink::Close() {
  if (std::exchange(closed_, true)) return;
  scheduler_.Cancel(retry_);
  scheduler_.RemovePoller(poller_);
  ::close(fd_);
}

void FrameLink::Fail(Error cause) {
  if (closed_) return;
  Close();
  handlers_.on_closed(std::move(cause));
}

int FrameLink::Progress() {
  char chunk[16384];
  int events = 0;
  for (size_t bytes = 0; !closed_ && bytes < kTurnBytesMax;) {
    const ssize_t got = ::recv(fd_, chunk, sizeof(chunk), 0);
    if (got > 0) {
      incoming_.append(chunk, static_cast<size_t>(got));
      bytes += static_cast<size_t>(got);
      ++events;
      TakeFrames();
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    Fail(MakeError(ErrorCode::kPeerDown, "the other end of the control socket has gone"));
    ++events;
  }
  return events;
}

bool FrameLink::TakeFrames() {
  size_t used = 0;
  while (!closed_ && incoming_.size() - used >= kLengthBytes) {
    const uint32_t length = ReadLength(incoming_.data() + used);
    if (length > kFrameBytesMax) {  // L1
      Fail(MakeError(ErrorCode::kCorrupt, "a control frame of {} bytes exceeds {}", length,
                     kFrameBytesMax));
      return false;
    }
    if (incoming_.size() - used - kLengthBytes < length) break;
    Status taken =
        handlers_.on_frame(std::string_view(incoming_).substr(used + kLengthBytes, length));
    if (!taken.ok()) Fail(std::move(taken).error());
    used += kLengthBytes + length;
  }
  incoming_.erase(0, used);
  return !closed_;
}

void FrameLink::Send(std::string_view frame) {
  if (closed_) return;
  AppendLength(outgoing_, static_cast<uint32_t>(frame.size()));
  outgoing_.append(frame);
  Write();
}

void FrameLink::SendTelemetry(std::string_view frame) {
  if (outgoing_.size() - written_ > kBacklogBytesMax) {
    ++dropped_;
    return;
  }
  Send(frame);
}

void FrameLink::Write() {
  while (!closed_ && written_ < outgoing_.size()) {
    const ssize_t put =
        ::send(fd_, outgoing_.data() + written_, outgoing_.size() - written_, MSG_NOSIGNAL);
    if (put >= 0) {
      written_ += static_cast<size_t>(put);
      continue;
    }
    if (errno == EINTR) continue;
    // Progress finds out when the peer has gone; until then look again soon.
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      scheduler_.Cancel(retry_);
      retry_ = scheduler_.After(1, [this] { Write(); });
    }
    return;
  }
  outgoing_.clear();
  written_ = 0;
}

void FrameLink::Drain(int timeout_ms) {
  const int64_t end_ns = scheduler_.clock().NowNs() + int64_t{timeout_ms} * 1'000'000;
  Write();
  while (!closed_ && written_ < outgoing_.size() && scheduler_.clock().NowNs() < end_ns) {
    pollfd waiting{.fd = fd_, .events = POLLOUT, .revents = 0};
    if (::poll(&waiting, 1, 10) > 0 && (waiting.revents & (POLLERR | POLLHUP)) != 0) return;
    Write();
  }
}

}  // namespace troupe
