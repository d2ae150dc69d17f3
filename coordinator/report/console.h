// What a client that follows a job shows. Talk goes to stderr: a bar on a terminal, plain lines
// elsewhere. With jsonl, stdout gets one object a step and last the result; with json the result
// alone. On no terminal a line comes at least every 30 seconds, whatever the job waits for.
// Thread: any, one call at a time; with `ticks` one of its own looks for silence.
#pragma once

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>

#include "coordinator/report/job_report.h"
#include "coordinator/report/memory_report.h"
#include "coordinator/report/metrics_json.h"
#include "proto/control.pb.h"
#include "runtime/base/clock.h"
#include "runtime/base/result.h"

namespace troupe {

struct ConsoleOptions {
  OutputFormat output = OutputFormat::kText;
  int log_every = 1;
  int num_workers = 1;
  int64_t steps = 0;
  std::string resume_command{};  // what goes on after any end but success
  bool bar = false;              // stderr is a terminal that moves its cursor
  bool trace = true;             // the run leaves one
  bool tensorboard = true;
  bool ticks = false;        // looks by itself whether a line is due
  int64_t seen_through = 0;  // steps up to this one are history: they are not told again
};

class Console {
 public:
  Console(ConsoleOptions options, Clock& clock, std::FILE* data, std::FILE* talk);
  void Show(const proto::JobEvent& event);
  // An error once stdout took no more: that is said at once, the rest of the data is left out.
  const Status& printed() const { return printed_; }
  // Says that the job goes on, where nothing was said for long.
  void Tick();

 private:
  void ShowState(const proto::JobSummary& summary);
  void ShowRank(const proto::RankMessage& message);
  void ShowHappening(int32_t rank, const proto::Happening& happening);
  void ShowStep(const proto::StepMetrics& metrics);
  void ShowReferenceStep(const proto::StepMetrics& metrics);
  void ShowEval(const proto::EvalMetrics& metrics);
  void ShowResult(const proto::JobResult& result);
  void ShowWhatWasTrained();
  void ShowWhatWasMade(const std::string& run_directory);
  // A line that may come every few steps only: at the first, the last, every tenth of the way, and
  // after ten seconds of silence.
  bool IsLineDue(int64_t step);
  void DrawBar(int64_t step, const std::string& text);
  void ClearBar();
  void SayWhereNothingWas();
  void Say(const std::string& line);
  void Talk(const std::string& text);
  void Data(const std::string& line);
  void StepData(const std::string& line);
  double SecondsLeft(const proto::StepMetrics& metrics) const;

  const ConsoleOptions options_;
  Clock& clock_;
  std::FILE* const data_;
  std::FILE* const talk_;
  std::mutex mutex_{};  // guards what follows, and the files
  bool bar_shown_ = false;
  bool ended_ = false;
  int64_t last_line_ns_ = 0;
  proto::JobState state_ = proto::JOB_STATE_UNKNOWN;
  int64_t state_since_ns_ = 0;
  std::string reason_{};
  std::string last_happening_{};
  bool reference_announced_ = false;
  // The steps seen: the first, when, and the last.
  bool any_step_ = false;
  proto::StepMetrics first_{};
  proto::StepMetrics last_{};
  int64_t first_ns_ = 0;
  int64_t last_ns_ = 0;
  int64_t first_shown_ = 0;  // the first step beyond `seen_through`; 0: none yet
  MemoryReports memory_{};
  MemoryPeaks peaks_{};
  std::string hf_directory_{};
  Status printed_{};
  std::condition_variable_any wake_{};
  std::jthread ticker_{};  // ends first
};

// The last line after any end but success: from which committed step to go on, and how.
std::string GoOnText(int64_t committed_step, bool committed, const std::string& command);

// Whether `file` is a terminal that can move its cursor (TERM is not dumb).
bool ShowsBar(std::FILE* file);

}  // namespace troupe
