// RunTraces: gathers the spans of a run's traced steps (log.trace) and writes them when a window of
// steps is over, one file each: trace/step-00000001.json. Owned by the run directory.
// Thread: the run directory's.
//   W1. A file is written whole: it is valid at every time that it is there.
//   W2. A window is in its file whole, or left out whole: where kOpenSpansMax spans wait already.
//   W3. A window keeps kSpansMax spans, all files together kBytesMax; what is beyond is counted and
//       left out.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "actors/plan/trace_window.h"
#include "coordinator/report/trace_text.h"
#include "runtime/base/clock.h"
#include "runtime/base/file_system.h"

namespace troupe {

class RunTraces {
 public:
  static constexpr size_t kSpansMax = 100'000;
  static constexpr size_t kOpenSpansMax = 400'000;
  static constexpr size_t kOpenMax = 4096;  // windows
  static constexpr size_t kNameBytesMax = 100;
  static constexpr int64_t kBytesMax = int64_t{256} << 20;
  static constexpr int kLateMs = 1000;  // after a window's end spans may still be under way

  // Files and clock outlive this; the clocks are those of the ranks. The folder is made with the
  // first file.
  RunTraces(FileSystem& files, Clock& clock, ClockAlignment& clocks, std::string folder,
            const TraceWindow& window)
      : files_(files),
        clock_(clock),
        clocks_(clocks),
        folder_(std::move(folder)),
        window_(window) {}

  void NameRank(int32_t rank, std::string name) { rank_names_[rank] = std::move(name); }
  // Spans of steps that no window covers are passed over.
  void Add(int32_t rank, const proto::Span& span);
  // Writes the windows that are over.
  Status StepDone(int64_t step);
  // Writes what there is.
  Status Finish();

  int64_t spans_left_out() const { return spans_left_out_; }
  int64_t windows_left_out() const { return windows_left_out_; }

 private:
  struct OpenWindow {
    int64_t last_step = 0;
    int64_t over_ns = 0;    // when a later step was done; 0: not yet
    bool left_out = false;  // W2
    std::vector<TracedSpan> spans{};
  };
  OpenWindow* Open(int64_t step);  // null: another one too many
  Status Write(int64_t first_step, const OpenWindow& window);

  FileSystem& files_;
  Clock& clock_;
  ClockAlignment& clocks_;
  const std::string folder_;
  const TraceWindow window_;
  std::map<int32_t, std::string> rank_names_{};
  std::map<int64_t, OpenWindow> open_{};  // by first step
  size_t open_spans_ = 0;                 // of all open windows
  int64_t written_through_ = 0;           // the last step of the newest window that is written
  int64_t num_bytes_ = 0;
  int64_t spans_left_out_ = 0;
  int64_t windows_left_out_ = 0;
};

}  // namespace troupe
