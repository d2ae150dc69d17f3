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

// Whether `path` names the file that is open as `descriptor`.
bool Names(const std::string& path, int descriptor) {
  struct stat named {};
  struct stat opened {};
  return ::stat(path.c_str(), &named) == 0 && ::fstat(descriptor, &opened) == 0 &&
         named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

class PosixFileLock : public FileLock {
 public:
  PosixFileLock(std::string path, int descriptor)
      : path_(std::move(path)), descriptor_(descriptor) {}
  ~PosixFileLock() override { ::close(descriptor_); }

  bool StillNamed() const override { return Names(path_, descriptor_); }
  int descriptor() const { return descriptor_; }

 private:
  const std::string path_;
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

Result<std::unique_ptr<PosixFileLock>> OpenAndLock(const std::string& path) {
  const int descriptor =
      ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0666);
  if (descriptor < 0) return LockError(path, errno);
  auto lock = std::make_unique<PosixFileLock>(path, descriptor);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return LockError(path, errno);
  if (!S_ISREG(status.st_mode)) return MakeError(ErrorCode::kIo, "{}: not a regular file", path);
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) return LockError(path, errno);
  return MakeError(ErrorCode::kResourceExhausted, "{}: held by {}", path, HolderIn(descriptor));
}

}  // namespace

Result<std::unique_ptr<FileLock>> LockFile(const std::string& path, std::string_view holder) {
  constexpr int kTriesMax = 100;
  for (int i = 0; i < kTriesMax; ++i) {
    ASSIGN_OR_RETURN(auto lock, OpenAndLock(path));
    // Its holder moved the folder away after we opened the file: another one is there now.
    if (!lock->StillNamed()) continue;
    const std::string line = fmt::format("{}\n", holder);
    // On a full disk the lock holds all the same, only without a name.
    if (::ftruncate(lock->descriptor(), 0) == 0) {
      [[maybe_unused]] const ssize_t written =
          ::pwrite(lock->descriptor(), line.data(), line.size(), 0);
    }
    return std::unique_ptr<FileLock>(std::move(lock));
  }
  return MakeError(ErrorCode::kIo, "{}: cannot lock: it is replaced again and again", path);
}

}  // namespace troupe
