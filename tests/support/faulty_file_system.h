// The machine's files with faults on order: a disk that is full after so many bytes, and calls that
// fail by number. What the fault interrupts stays as a crash would leave it: the bytes of a failed
// write up to the limit are in the file, a failed rename has renamed nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/file_system.h"

namespace troupe::testing {

struct FileFaults {
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  // Counted over all files, from 1; the call of that number and every later one fails.
  int64_t full_after_bytes = kNever;
  int64_t fail_write = kNever;
  int64_t fail_sync = kNever;
  int64_t fail_rename = kNever;
  int64_t fail_read = kNever;  // of files that are read in pieces
};

class FaultyFileSystem : public FileSystem {
 public:
  explicit FaultyFileSystem(FileFaults faults = {}, FileSystem& under = SystemFiles())
      : faults_(faults), under_(under) {}

  void SetFaults(const FileFaults& faults) { faults_ = faults; }
  int64_t num_bytes_written() const { return num_bytes_; }
  int64_t num_writes() const { return num_writes_; }
  int64_t num_syncs() const { return num_syncs_; }
  int64_t num_renames() const { return num_renames_; }
  // "write a", "sync a", "rename a b", "sync-folder d" in order, by base name.
  const std::vector<std::string>& calls() const { return calls_; }

  Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) override {
    return under_.ReadFile(path, max_bytes);
  }
  Result<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path,
                                                     WriteMode mode) override {
    ASSIGN_OR_RETURN(auto file, under_.OpenForWrite(path, mode));
    return std::unique_ptr<WritableFile>(std::make_unique<File>(*this, path, std::move(file)));
  }
  Status Rename(const std::string& from, const std::string& to) override {
    if (++num_renames_ >= faults_.fail_rename) {
      return MakeError(ErrorCode::kIo, "{}: cannot rename to {}: injected fault", from, to);
    }
    calls_.push_back("rename " + BaseName(from) + " " + BaseName(to));
    return under_.Rename(from, to);
  }
  Status SyncDirectory(const std::string& path) override {
    if (++num_syncs_ >= faults_.fail_sync) return SyncError(path);
    calls_.push_back("sync-folder " + BaseName(path));
    return under_.SyncDirectory(path);
  }
  Status CreateDirectories(const std::string& path) override {
    return under_.CreateDirectories(path);
  }
  Status RemoveAll(const std::string& path) override { return under_.RemoveAll(path); }
  Result<std::vector<std::string>> List(const std::string& path) override {
    return under_.List(path);
  }
  bool Exists(const std::string& path) override { return under_.Exists(path); }
  Result<int64_t> FileBytes(const std::string& path) override { return under_.FileBytes(path); }
  Result<int64_t> FreeBytes(const std::string& path) override {
    if (faults_.full_after_bytes == FileFaults::kNever) return under_.FreeBytes(path);
    return std::max<int64_t>(faults_.full_after_bytes - num_bytes_, 0);
  }
  Result<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) override {
    ASSIGN_OR_RETURN(auto file, under_.OpenForRead(path));
    return std::unique_ptr<ReadableFile>(std::make_unique<Readable>(*this, path, std::move(file)));
  }
  Status PointLink(const std::string& path, const std::string& target) override {
    return under_.PointLink(path, target);
  }
  Result<std::string> ReadLink(const std::string& path) override { return under_.ReadLink(path); }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path,
                                         std::string_view holder) override {
    return under_.Lock(path, holder);
  }

 private:
  class Readable : public ReadableFile {
   public:
    Readable(FaultyFileSystem& files, std::string path, std::unique_ptr<ReadableFile> under)
        : files_(files), path_(std::move(path)), under_(std::move(under)) {}
    Status ReadAt(int64_t begin, std::span<std::byte> out) const override {
      if (++files_.num_reads_ >= files_.faults_.fail_read) {
        return MakeError(ErrorCode::kIo, "{}: cannot read: injected fault", path_);
      }
      return under_->ReadAt(begin, out);
    }
    Result<FileVersion> Version() const override { return under_->Version(); }

   private:
    FaultyFileSystem& files_;
    std::string path_;
    std::unique_ptr<ReadableFile> under_;
  };

  class File : public WritableFile {
   public:
    File(FaultyFileSystem& files, std::string path, std::unique_ptr<WritableFile> under)
        : files_(files), path_(std::move(path)), under_(std::move(under)) {}
    Status Append(std::span<const std::byte> bytes) override {
      if (++files_.num_writes_ >= files_.faults_.fail_write) {
        return MakeError(ErrorCode::kIo, "{}: cannot write: injected fault", path_);
      }
      files_.calls_.push_back("write " + BaseName(path_));
      const int64_t room =
          std::max<int64_t>(files_.faults_.full_after_bytes - files_.num_bytes_, 0);
      const auto fits = bytes.first(std::min(bytes.size(), static_cast<size_t>(room)));
      files_.num_bytes_ += static_cast<int64_t>(fits.size());
      RETURN_IF_ERROR(under_->Append(fits));
      if (fits.size() == bytes.size()) return {};
      return MakeError(ErrorCode::kOutOfSpace, "{}: cannot write: the disk is full (injected)",
                       path_);
    }
    Status Sync() override {
      if (++files_.num_syncs_ >= files_.faults_.fail_sync) return SyncError(path_);
      files_.calls_.push_back("sync " + BaseName(path_));
      return under_->Sync();
    }
    Status Close() override { return under_->Close(); }

   private:
    FaultyFileSystem& files_;
    std::string path_;
    std::unique_ptr<WritableFile> under_;
  };

  static std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }
  static Error SyncError(const std::string& path) {
    return MakeError(ErrorCode::kIo, "{}: cannot sync: injected fault", path);
  }

  FileFaults faults_;
  FileSystem& under_;
  int64_t num_bytes_ = 0;
  int64_t num_writes_ = 0;
  int64_t num_syncs_ = 0;
  int64_t num_renames_ = 0;
  int64_t num_reads_ = 0;
  std::vector<std::string> calls_;
};

}  // namespace troupe::testing
