#include "runtime/base/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

namespace troupe {
namespace {

// `doing` completes "cannot …".
Error ErrnoError(int number, std::string_view doing, const std::string& path) {
  const std::string reason = std::generic_category().message(number);
  if (number == ENOSPC || number == EDQUOT) {
    return MakeError(ErrorCode::kOutOfSpace,
                     "{}: cannot {}: the disk or the quota is full ({}); free some space", path,
                     doing, reason);
  }
  if (number == EFBIG) {
    return MakeError(ErrorCode::kOutOfSpace,
                     "{}: cannot {}: {}: raise the limit on a file's size (ulimit -f)", path, doing,
                     reason);
  }
  const auto code = number == ENOENT || number == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo;
  return MakeError(code, "{}: cannot {}: {}", path, doing, reason);
}

Error EndsAt(int64_t num_bytes, const std::string& path) {
  return MakeError(ErrorCode::kIo, "{}: ends at byte {}, before what is to be read of it", path,
                   num_bytes);
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int value) : value_(value) {}
  FileDescriptor(FileDescriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(std::string path, FileDescriptor file)
      : path_(std::move(path)), file_(std::move(file)) {}

  Status Append(std::span<const std::byte> bytes) override {
    CHECK(file_.get() >= 0, "{} is closed", path_);
    while (!bytes.empty()) {
      const ssize_t written = ::write(file_.get(), bytes.data(), bytes.size());
      if (written < 0) {
        if (errno == EINTR) continue;
        return ErrnoError(errno, "write", path_);
      }
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
    return {};
  }

  Status Sync() override {
    CHECK(file_.get() >= 0, "{} is closed", path_);
    if (::fsync(file_.get()) != 0) return ErrnoError(errno, "sync", path_);
    return {};
  }

  // Network file systems report a full disk only here.
  Status Close() override {
    const int descriptor = file_.release();
    if (descriptor >= 0 && ::close(descriptor) != 0 && errno != EINTR) {
      return ErrnoError(errno, "close", path_);
    }
    return {};
  }

 private:
  std::string path_;
  FileDescriptor file_;
};

class PosixReadableFile : public ReadableFile {
 public:
  PosixReadableFile(std::string path, FileDescriptor file)
      : path_(std::move(path)), file_(std::move(file)) {}

  Status ReadAt(int64_t begin, std::span<std::byte> out) const override {
    while (!out.empty()) {
      const ssize_t got = ::pread(file_.get(), out.data(), out.size(), begin);
      if (got < 0) {
        if (errno == EINTR) continue;
        return ErrnoError(errno, fmt::format("read at byte {}", begin), path_);
      }
      if (got == 0) return EndsAt(begin, path_);
      begin += got;
      out = out.subspan(static_cast<size_t>(got));
    }
    return {};
  }

  Result<FileVersion> Version() const override {
    struct stat status {};
    if (::fstat(file_.get(), &status) != 0) return ErrnoError(errno, "inspect", path_);
    return FileVersion{status.st_size,
                       int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
  }

 private:
  std::string path_;
  FileDescriptor file_;
};

class PosixFileSystem : public FileSystem {
 public:
  Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) override;
  Result<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path,
                                                     WriteMode mode) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status SyncDirectory(const std::string& path) override;
  Status CreateDirectories(const std::string& path) override;
  Status RemoveAll(const std::string& path) override;
  Result<std::vector<std::string>> List(const std::string& path) override;
  bool Exists(const std::string& path) override;
  Result<int64_t> FileBytes(const std::string& path) override;
  Result<int64_t> FreeBytes(const std::string& path) override;
  Result<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) override;
  Status PointLink(const std::string& path, const std::string& target) override;
  Result<std::string> ReadLink(const std::string& path) override;
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path,
                                         std::string_view holder) override {
    return LockFile(path, holder);
  }
};

// Opens a regular file. Not blocking, so that a FIFO in its place is refused instead of waited for.
Result<FileDescriptor> OpenRegular(const std::string& path, int64_t* num_bytes) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return ErrnoError(errno, "open", path);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return ErrnoError(errno, "inspect", path);
  if (!S_ISREG(status.st_mode)) {
    return MakeError(ErrorCode::kIo, "{}: not a regular file", path);
  }
  *num_bytes = status.st_size;
  return file;
}

Result<std::string> PosixFileSystem::ReadFile(const std::string& path, int64_t max_bytes) {
  // Not sized by its status: /proc files say 0, and a file may grow while it is read.
  int64_t ignored = 0;
  ASSIGN_OR_RETURN(const FileDescriptor file, OpenRegular(path, &ignored));
  std::string text;
  constexpr size_t kPieceBytes = size_t{64} << 10;
  while (true) {
    const size_t before = text.size();
    text.resize(before + kPieceBytes);
    const ssize_t got = ::read(file.get(), text.data() + before, kPieceBytes);
    if (got < 0 && errno != EINTR) return ErrnoError(errno, "read", path);
    text.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (std::cmp_greater(text.size(), max_bytes)) {
      return MakeError(ErrorCode::kCorrupt, "{}: longer than the {} bytes allowed here", path,
                       max_bytes);
    }
    if (got == 0) return text;
  }
}

Result<std::unique_ptr<WritableFile>> PosixFileSystem::OpenForWrite(const std::string& path,
                                                                    WriteMode mode) {
  const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK |
                    (mode == WriteMode::kTruncate ? O_TRUNC : O_APPEND);
  FileDescriptor file(::open(path.c_str(), flags, 0666));
  // A FIFO that nobody reads is ENXIO, where it would be waited for without O_NONBLOCK.
  if (file.get() < 0 && errno != ENXIO) return ErrnoError(errno, "open for writing", path);
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0 ||
      !(S_ISREG(status.st_mode) || S_ISCHR(status.st_mode))) {
    return MakeError(ErrorCode::kIo, "{}: cannot write: not a regular file: move it away", path);
  }
  return std::unique_ptr<WritableFile>(std::make_unique<PosixWritableFile>(path, std::move(file)));
}

Status PosixFileSystem::Rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return ErrnoError(errno, fmt::format("rename to {}", to), from);
  }
  return {};
}

Status PosixFileSystem::SyncDirectory(const std::string& path) {
  FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0) return ErrnoError(errno, "open the folder", path);
  // Some network file systems know no fsync of a folder; their renames are synchronous.
  if (::fsync(folder.get()) != 0 && errno != EINVAL && errno != ENOTSUP) {
    return ErrnoError(errno, "sync the folder", path);
  }
  return {};
}

Status PosixFileSystem::CreateDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoError(error.value(), "create the folder", path);
  return {};
}

Status PosixFileSystem::RemoveAll(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return ErrnoError(error.value(), "remove", path);
  return {};
}

Result<std::vector<std::string>> PosixFileSystem::List(const std::string& path) {
  std::error_code error;
  std::filesystem::directory_iterator entry(path, error);
  std::vector<std::string> names;
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) return ErrnoError(error.value(), "list", path);
  std::ranges::sort(names);
  return names;
}

bool PosixFileSystem::Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

Result<int64_t> PosixFileSystem::FileBytes(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return ErrnoError(errno, "inspect", path);
  return int64_t{status.st_size};
}

Result<int64_t> PosixFileSystem::FreeBytes(const std::string& path) {
  struct statvfs status {};
  if (::statvfs(path.c_str(), &status) != 0) return ErrnoError(errno, "inspect the disk of", path);
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

Result<std::unique_ptr<ReadableFile>> PosixFileSystem::OpenForRead(const std::string& path) {
  int64_t ignored = 0;
  ASSIGN_OR_RETURN(FileDescriptor file, OpenRegular(path, &ignored));
  return std::unique_ptr<ReadableFile>(std::make_unique<PosixReadableFile>(path, std::move(file)));
}

Status PosixFileSystem::PointLink(const std::string& path, const std::string& target) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && !S_ISLNK(status.st_mode)) {
    return MakeError(ErrorCode::kIo, "{}: something else than a link is there: move it away", path);
  }
  const std::string aside = path + ".partial";
  (void)::unlink(aside.c_str());  // left by a crash
  if (::symlink(target.c_str(), aside.c_str()) != 0) return ErrnoError(errno, "link", path);
  if (Status renamed = Rename(aside, path); !renamed.ok()) {
    (void)::unlink(aside.c_str());
    return renamed;
  }
  return {};
}

Result<std::string> PosixFileSystem::ReadLink(const std::string& path) {
  std::error_code error;
  std::string target = std::filesystem::read_symlink(path, error).string();
  if (error) return ErrnoError(error.value(), "read the link", path);
  return target;
}

// Writes beside `path` and renames; what fails leaves the old file and nothing beside it.
Status WriteAside(FileSystem& files, const std::string& path, std::string_view bytes, bool sync) {
  const std::string aside = path + ".partial";
  const auto write = [&]() -> Status {
    ASSIGN_OR_RETURN(const auto file, files.OpenForWrite(aside, WriteMode::kTruncate));
    RETURN_IF_ERROR(file->Append(BytesOf(bytes)));
    if (sync) RETURN_IF_ERROR(file->Sync());
    RETURN_IF_ERROR(file->Close());
    return files.Rename(aside, path);
  };
  Status written = write();
  if (!written.ok()) (void)files.RemoveAll(aside);  // best effort: the first error is told
  return written;
}

}  // namespace

FileSystem& SystemFiles() {
  static PosixFileSystem files;
  return files;
}

Status WriteFileAtomically(FileSystem& files, const std::string& path, std::string_view bytes) {
  RETURN_IF_ERROR(WriteAside(files, path, bytes, /*sync=*/true));
  return files.SyncDirectory(FolderOf(path));
}

Status ReplaceFile(FileSystem& files, const std::string& path, std::string_view bytes) {
  return WriteAside(files, path, bytes, /*sync=*/false);
}

Result<std::string> CurrentFolder() {
  std::error_code error;
  std::string folder = std::filesystem::current_path(error).string();
  if (error) {
    return MakeError(ErrorCode::kIo,
                     "the working directory cannot be told ({}): go to one that exists",
                     error.message());
  }
  return folder;
}

std::string JoinPath(std::string_view folder, std::string_view name) {
  if (folder.empty()) return std::string(name);
  return fmt::format("{}{}{}", folder, folder.ends_with('/') ? "" : "/", name);
}

std::string FolderOf(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return std::string(path.substr(0, std::max<size_t>(slash, 1)));
}

std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace troupe
