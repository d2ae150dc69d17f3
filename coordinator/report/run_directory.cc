#include "coordinator/report/run_directory.h"

#include <fmt/format.h>

#include <utility>

#include "actors/plan/job_plan.h"
#include "coordinator/report/metrics_json.h"
#include "coordinator/report/plan_report.h"

namespace troupe {

RunDirectory::RunDirectory(FileSystem& files, Clock& clock, std::string path)
    : files_(files), clock_(clock), path_(std::move(path)) {}

Status RunDirectory::Open(const proto::SubmitRequest& request) {
  num_workers_ = std::max(1, request.spec().resources().workers());
  RETURN_IF_ERROR(files_.CreateDirectories(JoinPath(path_, "logs")));
  RETURN_IF_ERROR(WriteFileAtomically(files_, JoinPath(path_, "job.yaml"), request.job_file()));
  RETURN_IF_ERROR(
      WriteFileAtomically(files_, JoinPath(path_, "job.effective.yaml"), request.effective_file()));
  ASSIGN_OR_RETURN(const JobPlan plan, MakeJobPlan(request.spec()));
  return WriteFileAtomically(files_, JoinPath(path_, "plan.json"), PlanJson(request.spec(), plan));
}

void RunDirectory::Append(const std::string& name, const std::string& text) {
  auto file = open_.find(name);
  Status status;
  if (file == open_.end()) {
    auto opened = files_.OpenForWrite(JoinPath(path_, name), WriteMode::kAppend);
    if (opened.ok()) {
      file = open_.emplace(name, *std::move(opened)).first;
    } else {
      status = std::move(opened).error();
    }
  }
  if (status.ok()) status = file->second->Append(BytesOf(text));
  if (!status.ok() && !std::exchange(complained_, true)) {
    fmt::print(stderr, "the run's records are incomplete from now on: {}\n",
               status.error().message);
  }
}

void RunDirectory::Event(const std::string& kind, const std::string& fields) {
  Append("events.jsonl", fmt::format("{{\"time\":{:.6f},\"event\":\"{}\"{}{}}}\n",
                                     static_cast<double>(clock_.WallUs()) * 1e-6, kind,
                                     fields.empty() ? "" : ",", fields));
}

void RunDirectory::RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) {
  if (reference_run) return;
  switch (message.message_case()) {
    case proto::FromRank::kMetrics:
      return Append("metrics.jsonl",
                    MetricsJson(message.metrics(), num_workers_, clock_.WallUs()) + "\n");
    case proto::FromRank::kEval:
      return Append("metrics.jsonl", EvalJson(message.eval(), clock_.WallUs()) + "\n");
    case proto::FromRank::kHappening:
      return Event("happening", fmt::format("\"rank\":{},\"level\":{},\"text\":{}", rank,
                                            JsonText(message.happening().level()),
                                            JsonText(message.happening().text())));
    case proto::FromRank::kCheckpoint:
      return Event("checkpoint",
                   fmt::format("\"step\":{},\"directory\":{}", message.checkpoint().step(),
                               JsonText(message.checkpoint().directory())));
    case proto::FromRank::kReady: {
      std::string lanes;
      for (const auto& lane : message.ready().lanes()) {
        lanes += fmt::format("{}\"{}\":{}", lanes.empty() ? "" : ",", lane.peer(),
                             JsonText(lane.lane()));
      }
      return Event("ready", fmt::format("\"rank\":{},\"lanes\":{{{}}}", rank, lanes));
    }
    default:
      return;
  }
}

void RunDirectory::RankLogged(int32_t rank, bool reference_run, const std::string& lines) {
  Append(fmt::format("logs/{}rank-{:04}.log", reference_run ? "reference-" : "", rank), lines);
}

void RunDirectory::StateChanged(const proto::JobSummary& summary) {
  Event("state", fmt::format("\"job\":{},\"state\":{},\"reason\":{}", summary.job(),
                             JsonText(JobStateName(summary.state())), JsonText(summary.reason())));
}

void RunDirectory::Ended(const proto::JobResult& result) {
  const Status written =
      WriteFileAtomically(files_, JoinPath(path_, "result.json"), ResultJson(result) + "\n");
  if (!written.ok()) fmt::print(stderr, "{}\n", written.error().message);
  for (auto& [name, file] : open_) (void)file->Close();
  open_.clear();
}

}  // namespace troupe
