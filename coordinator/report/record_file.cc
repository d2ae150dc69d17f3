#include "coordinator/report/record_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

int64_t CountLines(std::string_view text) { return std::ranges::count(text, '\n'); }

}  // namespace

RecordFile::RecordFile(FileSystem& files, Clock& clock, std::string path)
    : files_(files), clock_(clock), path_(std::move(path)) {}

void RecordFile::Append(std::string_view lines) {
  const int64_t count = CountLines(lines);
  num_lines_ += count;
  if (waiting_.size() + lines.size() > kWaitingBytesMax) {
    lost_ += count;  // F2
    return;
  }
  waiting_ += lines;
  waiting_lines_ += count;
  if (failing_ && clock_.NowNs() - failed_ns_ < int64_t{kRetryMs} * 1'000'000) return;
  Flush();
}

void RecordFile::Flush() {
  if (waiting_.empty()) return;
  const Status written = Write();
  failing_ = !written.ok();
  if (written.ok()) return;
  file_.reset();  // opened anew, whatever it was that failed
  failed_ns_ = clock_.NowNs();
  trouble_ = written.error().message;
}

Status RecordFile::Open() {
  RETURN_IF_ERROR(files_.CreateDirectories(FolderOf(path_)));
  ASSIGN_OR_RETURN(file_, files_.OpenForWrite(path_, WriteMode::kAppend));
  if (file_bytes_) return {};
  ASSIGN_OR_RETURN(file_bytes_, files_.FileBytes(path_));  // what an earlier run left
  return {};
}

// What became of the file since the last write.
Status RecordFile::Inspect() {
  const auto bytes = files_.FileBytes(path_);
  if (!bytes.ok() && bytes.error().code != ErrorCode::kNotFound) return bytes.error();
  const int64_t there = bytes.ok() ? *bytes : -1;
  if (there < *file_bytes_) {  // F3
    lost_ += std::exchange(lines_in_file_, 0);
    trouble_ = fmt::format("{} was {} while the job ran", path_, there < 0 ? "removed" : "cut");
    file_bytes_.reset();
    file_.reset();
  } else if (there > *file_bytes_) {  // F1: a failed write got so far
    const auto got = std::min(static_cast<size_t>(there - *file_bytes_), waiting_.size());
    const int64_t lines = CountLines(std::string_view(waiting_).substr(0, got));
    waiting_.erase(0, got);
    waiting_lines_ -= lines;
    lines_in_file_ += lines;
    file_bytes_ = there;
  }
  return {};
}

Status RecordFile::Write() {
  if (file_bytes_) RETURN_IF_ERROR(Inspect());
  if (file_ == nullptr) RETURN_IF_ERROR(Open());
  RETURN_IF_ERROR(file_->Append(BytesOf(waiting_)));
  *file_bytes_ += static_cast<int64_t>(waiting_.size());
  lines_in_file_ += std::exchange(waiting_lines_, 0);
  waiting_.clear();
  return {};
}

void RecordFile::Close() {
  Flush();
  if (file_ == nullptr) return;
  const Status closed = file_->Close();
  file_.reset();
  if (closed.ok()) return;
  trouble_ = closed.error().message;  // a network file system tells a full disk only here
  lost_ += std::exchange(lines_in_file_, 0);
}

}  // namespace troupe
