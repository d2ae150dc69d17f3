// RunDirectory: writes what a job's ranks say into its run directory (README: "what a run leaves").
// A full disk or a lost folder costs records, said once, never the job.
// Thread: one at a time (background_recorder.h gives it one of its own).
//
//   job.yaml job.effective.yaml plan.json env.json result.json   written whole
//   metrics.jsonl events.jsonl logs/ tb/ trace/                   appended to as the run goes
//   schedule.svg schedule.csv loss.svg memory.svg memory.json costs.json
//                                                                 redrawn every kDrawEveryMs
//
//   D1. A resumed run keeps the metrics up to the step that it resumes from and drops the rest; a
//       fresh run in a used directory drops all.
//   D2. The reference run leaves logs, nothing else.
//   D3. `latest` beside a run directory that nobody named is a link to the newest one.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/job_life.h"
#include "coordinator/report/clock_alignment.h"
#include "coordinator/report/memory_report.h"
#include "coordinator/report/metrics_json.h"
#include "coordinator/report/run_pictures.h"
#include "coordinator/report/run_traces.h"
#include "runtime/base/file_system.h"
#include "runtime/format/tensorboard.h"

namespace troupe {

class RunDirectory : public JobRecorder {
 public:
  static constexpr int kDrawEveryMs = 10'000;

  RunDirectory(FileSystem& files, Clock& clock, std::string path);

  Status Open(const proto::SubmitRequest& request) override;
  void Placed(const std::vector<std::string>& hosts) override;
  void Planned(const std::vector<proto::Parallelism>& orders) override;
  void RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) override;
  void RankLogged(int32_t rank, bool reference_run, const std::string& lines) override;
  void StateChanged(const proto::JobSummary& summary) override;
  void Ended(const proto::JobResult& result, std::function<void()> done) override;

 private:
  Status OpenMetrics(const proto::SubmitRequest& request);
  Status OpenTensorboard(int64_t keep_through_step);
  Status ReadEarlierLosses();
  void RankStarted(int32_t rank, const proto::Hello& hello);
  void StepDone(const proto::StepMetrics& metrics);
  void Evaluated(const proto::EvalMetrics& metrics);
  void Traced(int32_t rank, const proto::SpanBatch& batch);
  void RankReady(int32_t rank, const proto::Ready& ready);
  void WriteEnvironment();
  Status WritePlan(const JobPlan& plan);
  void Draw();
  // Opens on first use; appends.
  void Append(const std::string& name, const std::string& text);
  void Event(std::string_view kind, std::string_view fields);
  void Scalar(int64_t step, std::string_view tag, double value);
  // The first failure is said on stderr, the coordinator's log.
  void Note(const Status& status);
  std::string In(std::string_view name) const { return JoinPath(path_, name); }

  FileSystem& files_;
  Clock& clock_;
  const std::string path_;
  proto::JobSpec spec_{};
  std::string command_line_{};
  int num_workers_ = 1;
  std::map<std::string, std::unique_ptr<WritableFile>> open_{};
  std::optional<TensorboardWriter> tensorboard_{};
  std::optional<RunTraces> traces_{};
  std::optional<RunPictures> pictures_{};
  ClockAlignment clocks_{};
  std::vector<std::string> hosts_{};  // of the ranks
  std::map<int32_t, proto::Hello> hellos_{};
  MemoryPeaks peaks_{};
  MemoryReports memory_{};
  std::string last_metrics_{};  // JSON
  int64_t restarts_ = 0;        // how often the run has been gone on with, or started anew
  bool started_ = false;
  int64_t opened_ns_ = 0;
  int64_t drawn_ns_ = 0;
  bool complained_ = false;
};

}  // namespace troupe
