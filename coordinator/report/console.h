// What a client that follows a job shows. Talk goes to stderr: a bar on a terminal, plain lines
// elsewhere. With jsonl, stdout gets one object a step and last the result; with json the result
// alone. On no terminal a line comes at least every 30 seconds, whatever the job waits for.
// Thread: any, one call at a time; with `ticks` one of its own looks for silence.
#pragma once

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "coordinator/report/communication_report.h"
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
  bool ticks = false;            // looks by itself whether a line is due, where it gets a thread
  // What is history, and not told again: steps up to this one, states before this one.
  int64_t seen_through = 0;
  proto::JobState seen_state = proto::JOB_STATE_UNKNOWN;
};

class Console {
 public:
  Console(ConsoleOptions options, Clock& clock, std::FILE* data, std::FILE* talk);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

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
  double SecondsLeft() const;
  double SecondsSinceFirst() const;

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
  // The steps seen: the first and the last, and when the last came.
  bool any_step_ = false;
  proto::StepMetrics first_{};
  proto::StepMetrics last_{};
  std::optional<double> first_loss_{};  // of those that had one
  std::optional<double> last_loss_{};
  int64_t last_ns_ = 0;
  int64_t first_shown_ = 0;  // the first step beyond `seen_through` of which was told; 0: none yet
  // Those that came as they were made tell how fast the job is: from the first of them on, by their
  // arrival.
  int64_t first_timed_ = 0;  // 0: none yet
  int64_t first_timed_ns_ = 0;
  double seconds_through_first_ = 0;  // of training, up to its end
  double seconds_since_first_ = 0;    // of the steps alone
  MemoryReports memory_{};
  CommunicationReports communication_{};
  MemoryPeaks peaks_{};
  std::string hf_directory_{};
  Status printed_{};
  std::condition_variable wake_{};
  bool closing_ = false;
  std::thread ticker_{};
};

// The last line after any end but success: from which committed step to go on, and how.
std::string GoOnText(int64_t committed_step, bool committed, const std::string& command);

// Whether `file` is a terminal that can move its cursor (TERM is not dumb).
bool ShowsBar(std::FILE* file);

}  // namespace troupe
