#include "coordinator/agent/log_pipe.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace troupe {
namespace {

void Watch(int watch_fd, int fd, bool on) {
  epoll_event event{.events = EPOLLIN, .data = {}};
  ::epoll_ctl(watch_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &event);
}

}  // namespace

LogPipe::LogPipe(Scheduler& scheduler, int fd, std::function<void(std::string_view)> on_piece)
    : scheduler_(scheduler),
      fd_(fd),
      watch_fd_(::epoll_create1(EPOLL_CLOEXEC)),
      on_piece_(std::move(on_piece)) {
  ::fcntl(fd_, F_SETFL, O_NONBLOCK);
  Watch(watch_fd_, fd_, true);
  // Without a descriptor to wait for, an idle scheduler looks every millisecond.
  poller_ = scheduler_.AddPoller([this] { return paused_ ? 0 : ReadPiece(); }, watch_fd_,
                                 [] { return true; });
}

LogPipe::~LogPipe() {
  scheduler_.RemovePoller(poller_);
  if (watch_fd_ >= 0) ::close(watch_fd_);
  ::close(fd_);
}

void LogPipe::Pause(bool paused) {
  if (std::exchange(paused_, paused) == paused || ended_) return;
  Watch(watch_fd_, fd_, !paused);
}

int LogPipe::ReadPiece() {
  if (ended_) return 0;
  std::array<char, kTurnBytesMax> piece;
  const ssize_t got = ::read(fd_, piece.data(), piece.size());
  if (got < 0) return 0;
  if (got == 0) {
    ended_ = true;
    if (!paused_) Watch(watch_fd_, fd_, false);
    return 0;
  }
  const std::string_view text(piece.data(), static_cast<size_t>(got));
  NoteLines(text);
  on_piece_(text);
  return 1;
}

void LogPipe::ReadRest() {
  for (size_t turn = 0; turn < kRestBytesMax / kTurnBytesMax && ReadPiece() > 0; ++turn) {
  }
  if (!unfinished_line_.empty()) NoteLines("\n");
}

void LogPipe::NoteLines(std::string_view piece) {
  while (!piece.empty()) {
    const size_t end = piece.find('\n');
    const std::string_view part = piece.substr(0, end);
    unfinished_line_ +=
        part.substr(0, kLineBytesMax - std::min(kLineBytesMax, unfinished_line_.size()));
    if (end == std::string_view::npos) return;
    piece.remove_prefix(end + 1);
    last_lines_.push_back(std::exchange(unfinished_line_, {}));
    if (last_lines_.size() > kLastLinesMax) last_lines_.pop_front();
  }
}

}  // namespace troupe
