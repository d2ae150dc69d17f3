#include "coordinator/ops/read_logs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "coordinator/job_life.h"

namespace troupe {
namespace {

// "rank-0003.log", "reference-rank-0000.log".
std::optional<std::pair<int32_t, bool>> RankOfLog(std::string_view name) {
  constexpr std::string_view kReference = "reference-";
  constexpr std::string_view kRank = "rank-";
  constexpr std::string_view kEnding = ".log";
  const bool reference_run = name.starts_with(kReference);
  if (reference_run) name.remove_prefix(kReference.size());
  if (!name.starts_with(kRank) || !name.ends_with(kEnding)) return {};
  name.remove_prefix(kRank.size());
  name.remove_suffix(kEnding.size());
  int32_t rank = 0;
  const auto [stop, code] = std::from_chars(name.data(), name.data() + name.size(), rank);
  if (name.empty() || code != std::errc() || stop != name.data() + name.size()) return {};
  return std::pair(rank, reference_run);
}

// Up to so many bytes from `offset` on. Whatever stands in a log's place is not waited for.
Result<std::string> ReadFrom(const std::string& path, int64_t offset, size_t bytes_max) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return MakeError(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  struct stat facts {};
  std::string text;
  ssize_t got = 0;
  if (::fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode)) {
    text.resize(bytes_max);
    got = ::pread(fd, text.data(), text.size(), offset);
  }
  const int error = errno;
  ::close(fd);
  if (got < 0) return MakeError(ErrorCode::kIo, "{}: {}", path, std::strerror(error));
  text.resize(static_cast<size_t>(got));
  return text;
}

// Protobuf's strings are UTF-8; a rank may print anything.
void ReplaceOtherThanAscii(std::string& text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return c >= 0x80; }, '?');
}

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80   ? 1
                          : lead < 0xc2 ? 0
                          : lead < 0xe0 ? 2
                          : lead < 0xf0 ? 3
                          : lead < 0xf5 ? 4
                                        : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

}  // namespace

Result<JobLogs> FindLogs(const State& state, const proto::ReadLogsRequest& request) {
  const auto job = state.jobs.find(request.job());
  if (job == state.jobs.end()) {
    return MakeError(ErrorCode::kNotFound, "there is no job {}: `troupe ps` lists them",
                     request.job());
  }
  const int num_workers = job->second->num_workers();
  if (request.has_rank() && (request.rank() < 0 || request.rank() >= num_workers)) {
    return MakeError(ErrorCode::kInvalidSpec, "rank {}: job {} has ranks 0 to {}", request.rank(),
                     request.job(), num_workers - 1);
  }
  return JobLogs{.folder = JoinPath(job->second->summary().run_directory(), "logs"),
                 .complete = job->second->ended()};
}

Status LogReader::FindFiles() {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, SystemFiles().List(folder_));
  for (const std::string& name : names) {
    const auto of = RankOfLog(name);
    const bool known =
        std::ranges::any_of(files_, [&](const LogFile& f) { return f.name == name; });
    const bool wanted = of && (!rank_ || (of->first == *rank_ && !of->second));
    if (known || !wanted) continue;
    files_.push_back({.name = name, .rank = of->first, .reference_run = of->second});
  }
  return {};
}

Result<std::optional<proto::LogLines>> LogReader::NextOf(LogFile& file, bool complete) const {
  const std::string path = JoinPath(folder_, file.name);
  if (complete && !file.end) {
    struct stat facts {};
    file.end = ::stat(path.c_str(), &facts) == 0 ? facts.st_size : 0;
  }
  const int64_t rest = file.end ? std::max<int64_t>(*file.end - file.offset, 0)
                                : std::numeric_limits<int64_t>::max();
  const size_t bytes_max = static_cast<size_t>(std::min<int64_t>(rest, kChunkBytesMax));
  ASSIGN_OR_RETURN(std::string text, ReadFrom(path, file.offset, bytes_max));
  const size_t last_end = text.rfind('\n');
  const bool whole = last_end != std::string::npos || complete || text.size() == kChunkBytesMax;
  if (text.empty() || !whole) return std::optional<proto::LogLines>();
  if (last_end != std::string::npos) text.resize(last_end + 1);
  file.offset += static_cast<int64_t>(text.size());
  if (!IsUtf8(text)) ReplaceOtherThanAscii(text);
  proto::LogLines lines;
  lines.set_rank(file.rank);
  lines.set_reference_run(file.reference_run);
  lines.set_lines(std::move(text));
  return std::optional(std::move(lines));
}

Result<std::optional<proto::LogLines>> LogReader::Next(bool complete) {
  do {
    if (at_ == 0) {
      told_ = false;
      RETURN_IF_ERROR(FindFiles());
    }
    while (at_ < files_.size()) {
      ASSIGN_OR_RETURN(auto lines, NextOf(files_[at_], complete));
      if (!lines || !complete) ++at_;
      if (!lines) continue;
      told_ = true;
      return std::optional(*std::move(lines));
    }
    at_ = 0;
  } while (told_);
  return std::optional<proto::LogLines>();
}

}  // namespace troupe
