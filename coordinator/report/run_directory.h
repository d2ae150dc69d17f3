// RunDirectory: writes what a job's ranks say into its run directory (README: "what a run leaves").
// What a full disk or a lost folder keeps from being written waits in memory, is told at once, and
// makes the result say that records are missing; it never stops the job.
// Thread: one at a time (background_recorder.h gives it one of its own).
//
//   job.yaml job.effective.yaml plan.json env.json result.json   written whole
//   metrics.jsonl events.jsonl logs/ tb/ trace/                   appended to as the run goes
//   schedule.svg schedule.csv loss.svg memory.svg memory.json costs.json
//                                                                 redrawn every kDrawEveryMs
//
//   D1. A run that goes on in its directory keeps the metrics up to the step that it goes on from
//       and drops the rest. No other run enters a used directory: it is refused, or the earlier one
//       is moved aside whole (run_folder.h). From Open to Begin the directory is claimed, from then
//       on locked; a job whose claim is gone by then fails, and touches nothing.
//   D2. The reference run leaves logs, nothing else.
//   D3. The link that the request names, runs/NAME/latest, leads to the newest run of that name.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/job_recorder.h"
#include "coordinator/report/clock_alignment.h"
#include "coordinator/report/communication_report.h"
#include "coordinator/report/memory_report.h"
#include "coordinator/report/metrics_json.h"
#include "coordinator/report/record_file.h"
#include "coordinator/report/run_folder.h"
#include "coordinator/report/run_pictures.h"
#include "coordinator/report/run_traces.h"
#include "runtime/base/file_system.h"
#include "runtime/format/tensorboard.h"

namespace troupe {

class RunDirectory : public JobRecorder {
 public:
  static constexpr int kDrawEveryMs = 10'000;

  // `on_trouble`: what cannot be written, once a file; on the thread that records.
  RunDirectory(FileSystem& files, Clock& clock, std::string path,
               std::function<void(const std::string&)> on_trouble = {});

  Status Open(const proto::SubmitRequest& request) override;
  void Begin(const std::vector<std::string>& hosts, std::function<void(Status)> done) override;
  void Planned(const std::vector<proto::Parallelism>& orders) override;
  void RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) override;
  void RankLogged(int32_t rank, bool reference_run, const std::string& lines) override;
  void StateChanged(const proto::JobSummary& summary) override;
  void Ended(const proto::JobResult& result,
             std::function<void(const proto::JobResult&)> done) override;

 private:
  FolderUse UseOf(const proto::SubmitRequest& request) const;
  Status OpenFiles();
  // Takes the claimed folder to keep.
  Result<std::unique_ptr<FileLock>> Enter();
  // Whether the folder at path_ is not another run's by now; one that was removed is made anew.
  bool HasFolder();
  void TellLeftOutSpans();
  void NameTheCheckpointThatIsThere(proto::JobResult& result) const;
  Status OpenMetrics();
  Status OpenTensorboard(int64_t keep_through_step);
  Result<int64_t> ReadEarlierLosses();
  void RankStarted(int32_t rank, const proto::Hello& hello);
  void StepDone(const proto::StepMetrics& metrics);
  void Evaluated(const proto::EvalMetrics& metrics);
  void Traced(int32_t rank, const proto::SpanBatch& batch);
  void RankReady(int32_t rank, const proto::Ready& ready);
  void WriteEnvironment();
  Status WritePlan(const JobPlan& plan);
  void Draw();
  void Append(const std::string& name, const std::string& text);
  void Event(std::string_view kind, std::string_view fields);
  void Scalar(int64_t step, std::string_view tag, double value);
  // How the last write of a file went; trouble is told when it begins.
  void Note(const std::string& name, const Status& status);
  void NoteStream(const std::string& name, const Status& status);
  void Tell(const std::string& name, const std::string& trouble);
  // Closes what is open and says which records are not whole, a sentence a file.
  std::vector<std::string> CloseFiles();
  // With what only this folder's records have: memory, communication, the last step.
  std::string ResultText(const proto::JobResult& result) const;
  void AddMissing(proto::JobResult& result, std::vector<std::string> missing) const;
  void StateIs(proto::JobState state, const std::string& reason);
  std::string In(std::string_view name) const { return JoinPath(path_, name); }

  FileSystem& files_;
  Clock& clock_;
  const std::string path_;
  const std::function<void(const std::string&)> on_trouble_;
  const FolderClaim claim_{};
  std::unique_ptr<FileLock> lock_{};
  bool begun_ = false;
  bool gone_ = false;  // it was removed or moved, and another run has its place
  proto::JobSpec spec_{};
  std::string command_line_{};
  std::string resume_from_{};
  std::string latest_{};
  uint64_t job_ = 0;
  int num_workers_ = 1;
  std::vector<std::pair<std::string, std::string>> early_{};  // file, text: from before Begin
  std::map<std::string, RecordFile> records_{};
  std::map<std::string, std::string> troubles_{};  // of the files written whole: the last write's
  std::set<std::string> told_{};
  std::optional<TensorboardWriter> tensorboard_{};
  std::optional<RunTraces> traces_{};
  std::optional<RunPictures> pictures_{};
  ClockAlignment clocks_{};
  std::vector<std::string> hosts_{};  // of the ranks
  std::map<int32_t, proto::Hello> hellos_{};
  MemoryPeaks peaks_{};
  MemoryReports memory_{};
  CommunicationReports communication_{};
  std::string last_metrics_{};  // JSON
  int64_t restarts_ = 0;        // how often the run has been gone on with, or started anew
  bool started_ = false;
  bool left_out_told_ = false;
  int64_t opened_ns_ = 0;
  int64_t drawn_ns_ = 0;
};

}  // namespace troupe
