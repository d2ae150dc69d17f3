// RecordFile: a file of lines that only grows, and that a full disk or a lost folder does not make
// lie. Lines that cannot be written wait in memory and go first as soon as writing works again.
// Owned by the run directory. Thread: one at a time.
//   F1. No line is torn or doubled: what a failed write left in the file is counted, not repeated.
//   F2. While kWaitingBytesMax wait, later lines are lost and counted.
//   F3. What was written and is gone, since its file was removed or cut, is counted as lost.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/base/clock.h"
#include "runtime/base/file_system.h"

namespace troupe {

class RecordFile {
 public:
  static constexpr size_t kWaitingBytesMax = size_t{8} << 20;
  static constexpr int kRetryMs = 1000;

  RecordFile(FileSystem& files, Clock& clock, std::string path);

  // Whole lines. After a failure the next try comes kRetryMs later, or with Flush.
  void Append(std::string_view lines);
  void Flush();
  // Flushes and closes; nothing may follow.
  void Close();

  int64_t num_lines() const { return num_lines_; }                // appended
  int64_t num_missing() const { return lost_ + waiting_lines_; }  // of them not in the file
  // Why the last write failed, or why lines are missing; empty: nothing ever went wrong.
  const std::string& trouble() const { return trouble_; }

 private:
  Status Write();
  Status Inspect();
  Status Open();

  FileSystem& files_;
  Clock& clock_;
  const std::string path_;
  std::unique_ptr<WritableFile> file_{};
  std::optional<int64_t> file_bytes_{};  // that the file must have; once it has been opened
  int64_t lines_in_file_ = 0;
  std::string waiting_{};
  int64_t waiting_lines_ = 0;
  int64_t num_lines_ = 0;
  int64_t lost_ = 0;
  int64_t failed_ns_ = 0;
  bool failing_ = false;
  std::string trouble_{};
};

}  // namespace troupe
