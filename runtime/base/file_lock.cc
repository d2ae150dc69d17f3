#include "runtime/base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

namespace troupe {
namespace {

class PosixFileLock : public FileLock {
 public:
  explicit PosixFileLock(int descriptor) : descriptor_(descriptor) {}
  ~PosixFileLock() override { ::close(descriptor_); }

 private:
  const int descriptor_;
};

Error LockError(const std::string& path, int number) {
  return MakeError(ErrorCode::kIo, "{}: cannot lock: {}", path,
                   std::generic_category().message(number));
}

std::string HolderIn(int descriptor) {
  std::array<char, 512> text{};
  const ssize_t got = ::pread(descriptor, text.data(), text.size(), 0);
  std::string holder(text.data(), static_cast<size_t>(std::max<ssize_t>(got, 0)));
  holder.resize(std::min(holder.find('\n'), holder.size()));
  return holder.empty() ? "another process" : holder;
}

}  // namespace

Result<std::unique_ptr<FileLock>> LockFile(const std::string& path, std::string_view holder) {
  const int descriptor =
      ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0666);
  if (descriptor < 0) return LockError(path, errno);
  auto lock = std::make_unique<PosixFileLock>(descriptor);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return LockError(path, errno);
  if (!S_ISREG(status.st_mode)) return MakeError(ErrorCode::kIo, "{}: not a regular file", path);
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return LockError(path, errno);
    return MakeError(ErrorCode::kResourceExhausted, "{}: held by {}", path, HolderIn(descriptor));
  }
  const std::string line = fmt::format("{}\n", holder);
  // On a full disk the lock holds all the same, only without a name.
  if (::ftruncate(descriptor, 0) == 0) {
    [[maybe_unused]] const ssize_t written = ::pwrite(descriptor, line.data(), line.size(), 0);
  }
  return std::unique_ptr<FileLock>(std::move(lock));
}

}  // namespace troupe
