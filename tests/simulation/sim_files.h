// What one simulated process sees of its host's disk: every call takes time, waits while the disk
// stands still, and does nothing any more once the process is dead.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/file_system.h"
#include "runtime/sim/sim_stream.h"
#include "runtime/sim/virtual_clock.h"
#include "tests/support/faulty_file_system.h"

namespace troupe::testing {

// A host's disk. All hosts share the files; full and slow it is by itself.
struct SimDisk {
  SimDisk(FileSystem& shared, const VirtualClock& clock_, SimWork& work_)
      : files({}, shared), clock(clock_), work(work_) {}

  // Takes the time of one call.
  void Spend() {
    work.Spend(kCallNs);
    const int64_t now_ns = clock.NowNs() + work.spent_ns();
    if (now_ns >= still_from_ns && now_ns < still_until_ns) work.Spend(still_until_ns - now_ns);
  }

  static constexpr int64_t kCallNs = 50'000;
  FaultyFileSystem files;
  const VirtualClock& clock;
  SimWork& work;
  int64_t still_from_ns = 0;
  int64_t still_until_ns = 0;
};

class SimFiles : public FileSystem {
 public:
  explicit SimFiles(SimDisk& disk) : disk_(disk) {}

  // From now on every call fails and changes nothing: its process is dead.
  void Die() { dead_ = true; }
  // `die` is called instead of the `number`-th call from now that would change something.
  void DieAtChange(int64_t number, std::function<void()> die) {
    changes_left_ = number;
    die_ = std::move(die);
  }

  Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) override {
    RETURN_IF_ERROR(Look());
    return disk_.files.ReadFile(path, max_bytes);
  }
  Result<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path,
                                                     WriteMode mode) override {
    RETURN_IF_ERROR(Change());
    ASSIGN_OR_RETURN(auto file, disk_.files.OpenForWrite(path, mode));
    return std::unique_ptr<WritableFile>(std::make_unique<Writer>(*this, std::move(file)));
  }
  Status Rename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(Change());
    return disk_.files.Rename(from, to);
  }
  Status SyncDirectory(const std::string& path) override {
    RETURN_IF_ERROR(Look());
    return disk_.files.SyncDirectory(path);
  }
  Status CreateDirectories(const std::string& path) override {
    RETURN_IF_ERROR(Change());
    return disk_.files.CreateDirectories(path);
  }
  Status RemoveAll(const std::string& path) override {
    RETURN_IF_ERROR(Change());
    return disk_.files.RemoveAll(path);
  }
  Result<std::vector<std::string>> List(const std::string& path) override {
    RETURN_IF_ERROR(Look());
    return disk_.files.List(path);
  }
  bool Exists(const std::string& path) override { return Look().ok() && disk_.files.Exists(path); }
  Result<int64_t> FileBytes(const std::string& path) override {
    RETURN_IF_ERROR(Look());
    return disk_.files.FileBytes(path);
  }
  Result<int64_t> FreeBytes(const std::string& path) override {
    RETURN_IF_ERROR(Look());
    return disk_.files.FreeBytes(path);
  }
  Result<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) override {
    RETURN_IF_ERROR(Look());
    ASSIGN_OR_RETURN(auto file, disk_.files.OpenForRead(path));
    return std::unique_ptr<ReadableFile>(std::make_unique<Reader>(disk_, std::move(file)));
  }
  Status PointLink(const std::string& path, const std::string& target) override {
    RETURN_IF_ERROR(Change());
    return disk_.files.PointLink(path, target);
  }
  Result<std::string> ReadLink(const std::string& path) override {
    RETURN_IF_ERROR(Look());
    return disk_.files.ReadLink(path);
  }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path,
                                         std::string_view holder) override {
    RETURN_IF_ERROR(Change());
    return disk_.files.Lock(path, holder);
  }

 private:
  class Writer : public WritableFile {
   public:
    Writer(SimFiles& files, std::unique_ptr<WritableFile> under)
        : files_(files), under_(std::move(under)) {}
    Status Append(std::span<const std::byte> bytes) override {
      RETURN_IF_ERROR(files_.Change());
      return under_->Append(bytes);
    }
    Status Sync() override {
      RETURN_IF_ERROR(files_.Look());
      return under_->Sync();
    }
    Status Close() override { return under_->Close(); }

   private:
    SimFiles& files_;
    const std::unique_ptr<WritableFile> under_;
  };
  class Reader : public ReadableFile {
   public:
    Reader(SimDisk& disk, std::unique_ptr<ReadableFile> under)
        : disk_(disk), under_(std::move(under)) {}
    Status ReadAt(int64_t begin, std::span<std::byte> out) const override {
      disk_.Spend();
      return under_->ReadAt(begin, out);
    }
    Result<FileVersion> Version() const override { return under_->Version(); }

   private:
    SimDisk& disk_;
    const std::unique_ptr<ReadableFile> under_;
  };

  Status Look() {
    if (dead_) return MakeError(ErrorCode::kIo, "the process is dead");
    disk_.Spend();
    return {};
  }
  Status Change() {
    if (!dead_ && changes_left_ > 0 && --changes_left_ == 0) die_();
    return Look();
  }

  SimDisk& disk_;
  bool dead_ = false;
  int64_t changes_left_ = 0;  // 0: it dies of nothing that it does here
  std::function<void()> die_{};
};

}  // namespace troupe::testing
