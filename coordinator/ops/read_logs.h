// ReadLogs: what a job's ranks print, from its start on, as its run directory has it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/state.h"

namespace troupe {

struct JobLogs {
  std::string folder{};   // one file a rank
  bool complete = false;  // the job has ended: nothing more comes
};
Result<JobLogs> FindLogs(const State& state, const proto::ReadLogsRequest& request);

// Reads the files of a folder of logs in turn, each from where it stood. Blocks on the disk: not on
// an event loop.
//   L1. Lines come whole, those of a rank in order; bytes that are not UTF-8 are replaced.
//   L2. While more may come, ranks have their turns, a chunk each: one that prints without end
//       holds nobody up. At the end they come one after the other, up to where their files ended
//       when the end was asked for.
class LogReader {
 public:
  static constexpr size_t kChunkBytesMax = size_t{64} << 10;

  // Without a rank: of all, and of the reference run.
  LogReader(std::string folder, std::optional<int32_t> rank)
      : folder_(std::move(folder)), rank_(rank) {}

  // Some lines of one rank; none where everything that is there has been read. `complete`: a last
  // line may lack its end.
  Result<std::optional<proto::LogLines>> Next(bool complete);

 private:
  struct LogFile {
    std::string name{};
    int32_t rank = 0;
    bool reference_run = false;
    int64_t offset = 0;
    std::optional<int64_t> end{};  // L2
  };
  Status FindFiles();
  Result<std::optional<proto::LogLines>> NextOf(LogFile& file, bool complete) const;

  const std::string folder_;
  const std::optional<int32_t> rank_;
  std::vector<LogFile> files_{};
  size_t at_ = 0;      // whose turn it is
  bool told_ = false;  // somebody's lines, in this round
};

}  // namespace troupe
