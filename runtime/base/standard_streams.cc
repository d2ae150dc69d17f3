#include "runtime/base/standard_streams.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <system_error>

namespace troupe {
namespace {

// A descriptor that is ready takes so many bytes without waiting (POSIX: PIPE_BUF).
constexpr size_t kPieceBytes = 4096;

Error CannotWrite(int number) {
  const auto code = number == ENOSPC || number == EDQUOT ? ErrorCode::kOutOfSpace : ErrorCode::kIo;
  return Error{code, std::generic_category().message(number)};
}

}  // namespace

void SecureStandardStreams() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one. The wrong direction keeps its use an error.
    (void)!::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

Status WriteWhole(int fd, std::string_view bytes, int patience_ms) {
  while (!bytes.empty()) {
    pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
    const int polled = ::poll(&ready, 1, patience_ms);
    if (polled < 0 && errno != EINTR) return CannotWrite(errno);
    if (polled == 0) return Error{ErrorCode::kIo, "nobody reads it"};
    if (polled < 0) continue;
    const ssize_t put = ::write(fd, bytes.data(), std::min(bytes.size(), kPieceBytes));
    if (put < 0 && errno != EINTR && errno != EAGAIN) return CannotWrite(errno);
    if (put > 0) bytes.remove_prefix(static_cast<size_t>(put));
  }
  return {};
}

Status PrintData(std::string_view text) {
  Status written = WriteWhole(STDOUT_FILENO, text);
  if (!written.ok()) return Context("stdout cannot be written", std::move(written).error());
  return {};
}

}  // namespace troupe
