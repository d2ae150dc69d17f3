// What a client that follows a job shows. Talk goes to stderr: a bar on a terminal, plain lines
// elsewhere. With jsonl, stdout gets one object a step and last the result.
// Thread: one.
#pragma once

#include <cstdio>
#include <string>

#include "proto/control.pb.h"
#include "runtime/base/clock.h"

namespace troupe {

struct ConsoleOptions {
  bool jsonl = false;
  int log_every = 1;
  int num_workers = 1;
  int64_t steps = 0;
  std::string resume_command{};  // what continues a cancelled job
  bool bar = false;              // stderr is a terminal that moves its cursor
};

class Console {
 public:
  Console(ConsoleOptions options, Clock& clock, std::FILE* data, std::FILE* talk);
  void Show(const proto::JobEvent& event);

 private:
  void ShowState(const proto::JobSummary& summary);
  void ShowRank(const proto::RankMessage& message);
  void ShowStep(const proto::StepMetrics& metrics, bool reference_run);
  void ShowResult(const proto::JobResult& result);
  void Say(const std::string& line);
  void ClearBar();

  const ConsoleOptions options_;
  Clock& clock_;
  std::FILE* const data_;
  std::FILE* const talk_;
  bool bar_shown_ = false;
  int64_t last_line_ns_ = 0;
  proto::JobState state_ = proto::JOB_STATE_UNKNOWN;
  std::string reason_{};
  bool reference_announced_ = false;
  double first_loss_ = 0;
  bool any_step_ = false;
  std::string hf_directory_{};
};

// Whether `file` is a terminal that can move its cursor (TERM is not dumb).
bool ShowsBar(std::FILE* file);

}  // namespace troupe
