// TraceFile: the spans of all ranks, streamed into one JSON file that Perfetto opens. Owned by the
// run directory. Thread: the coordinator's event loop.
//   T1. Between batches the file holds whole events; after Finish it is one valid JSON object.
//   T2. It never grows beyond kBytesMax: later spans are counted and left out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "proto/worker.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/trace/trace_json.h"

namespace troupe {

class TraceFile {
 public:
  static constexpr int64_t kBytesMax = int64_t{64} << 20;

  // Replaces what is at `path`.
  static Result<std::unique_ptr<TraceFile>> Create(FileSystem& files, const std::string& path);

  void NameRank(int32_t rank, const std::string& name) { json_.NameRank(Rank(rank), name); }
  // Times must be on one axis (clock_alignment.h).
  void Add(int32_t rank, const proto::Span& span);
  // What was added since the last call goes to the file.
  Status Flush();
  Status Finish();

  int64_t spans_left_out() const { return spans_left_out_; }

 private:
  explicit TraceFile(std::unique_ptr<WritableFile> file);

  std::unique_ptr<WritableFile> file_;
  std::string pending_{};
  int64_t num_bytes_ = 0;
  int64_t spans_left_out_ = 0;
  TraceJsonWriter json_;
};

}  // namespace troupe
