// FileSystem: the only door to files. Checkpoints, metrics and event files go through it, so a test
// can fill the disk or crash between a write and its rename, and the simulator keeps files in
// memory. Called by actors, host agents and the coordinator, on whatever thread owns the file.
//
// 1. Every failed call returns one sentence with the path. A full disk (ENOSPC, EDQUOT) is
//    kOutOfSpace, as is one at its allowed size (EFBIG); a missing file is kNotFound, any other
//    errno kIo. No call waits for another program: a FIFO in a file's place is refused.
// 2. What was appended is durable only after Sync; a rename only after SyncDirectory of its folder.
// 3. No file is mapped: somebody may cut it meanwhile, and touching mapped bytes that are gone ends
//    the process. A read of them is a sentence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/file_lock.h"
#include "runtime/base/result.h"

namespace troupe {

// A file open for writing at its end. One thread at a time. Destruction closes without an error
// report, so a writer that cares calls Close.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual Status Append(std::span<const std::byte> bytes) = 0;
  virtual Status Sync() = 0;   // fsync
  virtual Status Close() = 0;  // idempotent
};

// What tells one state of a file from another without reading it.
struct FileVersion {
  int64_t num_bytes = 0;
  int64_t changed_ns = 0;  // of the last write, wall clock
  bool operator==(const FileVersion&) const = default;
};

// An open file's bytes, read on demand. Thread-safe.
class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  // Fills `out` from byte `begin` on; kIo where the file ends before that.
  virtual Status ReadAt(int64_t begin, std::span<std::byte> out) const = 0;
  virtual Result<FileVersion> Version() const = 0;
};

enum class WriteMode : uint8_t { kTruncate, kAppend };

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // The whole file; an error when it is longer than `max_bytes`.
  virtual Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) = 0;
  virtual Result<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path,
                                                             WriteMode mode) = 0;
  // Replaces `to`, atomically on one file system.
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  virtual Status SyncDirectory(const std::string& path) = 0;
  virtual Status CreateDirectories(const std::string& path) = 0;
  // Removes a file or a folder with all inside; a path that does not exist is no error.
  virtual Status RemoveAll(const std::string& path) = 0;
  // Names (not paths) in a folder, ascending.
  virtual Result<std::vector<std::string>> List(const std::string& path) = 0;
  virtual bool Exists(const std::string& path) = 0;
  virtual Result<int64_t> FileBytes(const std::string& path) = 0;
  // Bytes that an unprivileged writer may still add on the disk that holds `path`.
  virtual Result<int64_t> FreeBytes(const std::string& path) = 0;
  virtual Result<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) = 0;
  // Makes `path` a symbolic link to `target` (relative: to the link's folder), atomically in place
  // of a link that is there; anything else in its place stays, with an error.
  virtual Status PointLink(const std::string& path, const std::string& target) = 0;
  // What the symbolic link `path` names, as it was made.
  virtual Result<std::string> ReadLink(const std::string& path) = 0;
  // LockFile (file_lock.h).
  virtual Result<std::unique_ptr<FileLock>> Lock(const std::string& path,
                                                 std::string_view holder) = 0;
};

// The machine's files. Thread-safe; lives for the whole process.
FileSystem& SystemFiles();

// Replaces `path` so that a reader, or a restart after a crash at any point, sees the old bytes or
// the new ones whole: write beside it, sync, rename, sync the folder.
Status WriteFileAtomically(FileSystem& files, const std::string& path, std::string_view bytes);

// The same for a reader, but it waits for no disk: after a power failure the file may be empty. For
// what is written anew all the time.
Status ReplaceFile(FileSystem& files, const std::string& path, std::string_view bytes);

// The working directory; an error where it was removed.
Result<std::string> CurrentFolder();

// "a/b" for ("a", "b"); the folder of "a/b" is "a", that of "b" is ".".
std::string JoinPath(std::string_view folder, std::string_view name);
std::string FolderOf(std::string_view path);

std::span<const std::byte> BytesOf(std::string_view text);

}  // namespace troupe
