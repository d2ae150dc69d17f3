#include "coordinator/report/run_directory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "actors/plan/job_plan.h"
#include "coordinator/report/attention_report.h"
#include "coordinator/report/plan_report.h"
#include "runtime/base/talk.h"
#include "runtime/format/checkpoint_manifest.h"
#include "runtime/format/metrics_file.h"

namespace troupe {
namespace {

constexpr double kGibibyte = 1 << 30;

double Seconds(int64_t wall_us) { return static_cast<double>(wall_us) * 1e-6; }

}  // namespace

RunDirectory::RunDirectory(FileSystem& files, Clock& clock, std::string path,
                           std::function<void(const std::string&)> on_trouble)
    : files_(files), clock_(clock), path_(std::move(path)), on_trouble_(std::move(on_trouble)) {}

void RunDirectory::Tell(const std::string& name, const std::string& trouble) {
  if (!told_.insert(name).second) return;
  Talk("the run's records are incomplete: {}\n", trouble);
  if (on_trouble_) on_trouble_(fmt::format("the run's records are incomplete: {}", trouble));
}

void RunDirectory::Note(const std::string& name, const Status& status) {
  if (status.ok()) {
    troubles_.erase(name);
    return;
  }
  troubles_[name] = status.error().message;
  Tell(name, status.error().message);
}

// A stream that has lost something stays so, however well later writes go.
void RunDirectory::NoteStream(const std::string& name, const Status& status) {
  if (!status.ok()) Note(name, status);
}

void RunDirectory::Append(const std::string& name, const std::string& text) {
  if (!begun_) {  // not before the folder is this job's
    early_.emplace_back(name, text);
    return;
  }
  if (!HasFolder()) return;
  auto file = records_.find(name);
  if (file == records_.end()) {
    file = records_.try_emplace(name, files_, clock_, In(name)).first;
  }
  file->second.Append(text);
  if (file->second.num_missing() > 0) Tell(name, file->second.trouble());
}

void RunDirectory::Event(std::string_view kind, std::string_view fields) {
  Append("events.jsonl",
         fmt::format("{{\"time\":{:.6f},\"event\":\"{}\"{}{}}}\n", Seconds(clock_.WallUs()), kind,
                     fields.empty() ? "" : ",", fields));
}

void RunDirectory::Scalar(int64_t step, std::string_view tag, double value) {
  if (tensorboard_) {
    NoteStream("tb", tensorboard_->AddScalar(Seconds(clock_.WallUs()), step, tag, value));
  }
}

void RunDirectory::Draw() {
  drawn_ns_ = clock_.NowNs();
  if (!pictures_ || !HasFolder()) return;
  const std::pair<const char*, std::string> pictures[] = {
      {"schedule.svg", pictures_->ScheduleSvg()}, {"schedule.csv", pictures_->ScheduleCsv()},
      {"costs.json", pictures_->CostsJson()},     {"loss.svg", pictures_->LossSvg()},
      {"memory.svg", pictures_->MemorySvg()},     {"memory.json", MemoryJson(memory_)}};
  for (const auto& [name, text] : pictures) {
    if (!text.empty()) Note(name, ReplaceFile(files_, In(name), text));
  }
}

void RunDirectory::WriteEnvironment() {
  nlohmann::ordered_json json;
  json["version"] = TROUPE_VERSION;
  json["command_line"] = command_line_;
  json["coordinator_host"] = ThisHost();
  json["coordinator_cores"] = ::sysconf(_SC_NPROCESSORS_ONLN);
  for (const auto& [rank, hello] : hellos_) {
    const auto at = static_cast<size_t>(rank);
    json["ranks"].push_back({{"rank", rank},
                             {"host", at < hosts_.size() ? hosts_[at] : ""},
                             {"pid", hello.pid()},
                             {"cpu", hello.cpu()},
                             {"build", hello.build()}});
  }
  const std::string text =
      json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  Note("env.json", WriteFileAtomically(files_, In("env.json"), text));
}

// ---- hearing ---------------------------------------------------------------------------------

Status RunDirectory::WritePlan(const JobPlan& plan) {
  return WriteFileAtomically(files_, In("plan.json"),
                             PlanJson(spec_, plan, {.isa = ThisVectorIsa()}) + "\n");
}

void RunDirectory::Planned(const std::vector<proto::Parallelism>& orders) {
  const auto plan = MakeJobPlan(spec_, orders);
  if (!plan.ok()) return;  // then no rank can plan either, and says so
  Note("plan.json", WritePlan(*plan));
  if (pictures_) pictures_->Replan(*plan, ThisVectorIsa());
}

void RunDirectory::RankStarted(int32_t rank, const proto::Hello& hello) {
  clocks_.Add(rank, hello.steady_ns(), hello.wall_us());
  hellos_[rank] = hello;
  if (traces_) traces_->NameRank(rank, fmt::format("rank {} (pid {})", rank, hello.pid()));
  if (hellos_.size() == static_cast<size_t>(num_workers_)) WriteEnvironment();
}

void RunDirectory::RankReady(int32_t rank, const proto::Ready& ready) {
  JsonLine lanes;
  for (const auto& lane : ready.lanes()) lanes.Add(std::to_string(lane.peer()), lane.lane());
  Event("ready", fmt::format("\"rank\":{},\"lanes\":{}", rank, lanes.Text()));
}

void RunDirectory::StepDone(const proto::StepMetrics& m) {
  last_metrics_ = MetricsJson(m, num_workers_, clock_.WallUs(), peaks_, restarts_);
  Append("metrics.jsonl", last_metrics_ + "\n");
  if (m.has_loss()) Scalar(m.step(), "train/loss", m.loss());
  if (m.has_grad_norm()) Scalar(m.step(), "train/grad_norm", m.grad_norm());
  Scalar(m.step(), "train/lr", m.lr());
  Scalar(m.step(), "train/tokens", static_cast<double>(m.tokens()));
  Scalar(m.step(), "train/restarts", static_cast<double>(restarts_));
  Scalar(m.step(), "perf/tokens_per_second", m.tokens_per_second());
  Scalar(m.step(), "perf/step_seconds", m.step_seconds());
  if (m.mfu() > 0) Scalar(m.step(), "perf/mfu", m.mfu());
  Scalar(m.step(), "perf/bubble", m.bubble_fraction());
  int64_t fullest = 0;
  for (const auto& [rank, peak] : peaks_) fullest = std::max(fullest, peak);
  if (fullest > 0) {
    Scalar(m.step(), "memory/peak_gib", static_cast<double>(fullest) / kGibibyte);
  }
  if (pictures_) {
    if (m.has_loss()) pictures_->AddLoss(m.step(), m.loss());
    pictures_->AddStep(m.step(), m.order(), m.step_seconds());
  }
  if (traces_) NoteStream("trace", traces_->StepDone(m.step()));
  TellLeftOutSpans();
  if (clock_.NowNs() - drawn_ns_ > int64_t{kDrawEveryMs} * 1'000'000) Draw();
}

void RunDirectory::Evaluated(const proto::EvalMetrics& m) {
  Append("metrics.jsonl", EvalJson(m, clock_.WallUs()) + "\n");
  if (!m.has_val_loss()) return;
  Scalar(m.step(), "val/loss", m.val_loss());
  if (pictures_) pictures_->AddValidationLoss(m.step(), m.val_loss());
}

void RunDirectory::Traced(int32_t rank, const proto::SpanBatch& batch) {
  for (proto::Span span : batch.spans()) {
    if (traces_) traces_->Add(rank, span);
    span.set_start_ns(clocks_.CommonNs(rank, span.start_ns()));
    span.set_end_ns(clocks_.CommonNs(rank, span.end_ns()));
    if (pictures_) pictures_->AddSpan(rank, span);
  }
  if (batch.dropped() > 0) {
    Event("spans_lost", fmt::format("\"rank\":{},\"count\":{}", rank, batch.dropped()));
  }
}

// Traces are telemetry: the records are whole without them, but nobody should look for them.
void RunDirectory::TellLeftOutSpans() {
  if (!traces_ || traces_->windows_left_out() == 0 || std::exchange(left_out_told_, true)) return;
  if (!on_trouble_) return;
  on_trouble_(
      fmt::format("trace: windows of steps come faster than they can be written: some are left "
                  "out; log.trace.every sets how often they come"));
}

void RunDirectory::RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) {
  if (reference_run) return;  // D2
  switch (message.message_case()) {
    case proto::FromRank::kHello:
      return RankStarted(rank, message.hello());
    case proto::FromRank::kReady:
      return RankReady(rank, message.ready());
    case proto::FromRank::kMetrics:
      return StepDone(message.metrics());
    case proto::FromRank::kEval:
      return Evaluated(message.eval());
    case proto::FromRank::kSpans:
      return Traced(rank, message.spans());
    case proto::FromRank::kMemory:
      NotePeak(peaks_, rank, message.memory());
      memory_[rank] = message.memory();
      if (pictures_) {
        pictures_->AddMemory(rank, static_cast<double>(clock_.NowNs() - opened_ns_) * 1e-9,
                             message.memory());
      }
      return;
    case proto::FromRank::kStepMemory:
      if (pictures_) pictures_->AddStepMemory(rank, message.step_memory());
      return;
    case proto::FromRank::kFinished:
      if (message.finished().has_communication()) {
        communication_[rank] = message.finished().communication();
      }
      return;
    case proto::FromRank::kHappening:
      return Event("happening", fmt::format("\"rank\":{},\"level\":{},\"text\":{}", rank,
                                            JsonText(message.happening().level()),
                                            JsonText(message.happening().text())));
    case proto::FromRank::kCheckpoint:
      return Event("checkpoint",
                   fmt::format("\"step\":{},\"directory\":{}", message.checkpoint().step(),
                               JsonText(message.checkpoint().directory())));
    case proto::FromRank::kSampled:
      return Event("sampled", fmt::format("\"prompt\":{},\"continuation\":{}",
                                          JsonText(message.sampled().prompt()),
                                          JsonText(message.sampled().continuation())));
    default:
      return;
  }
}

void RunDirectory::RankLogged(int32_t rank, bool reference_run, const std::string& lines) {
  Append(fmt::format("logs/{}rank-{:04}.log", reference_run ? "reference-" : "", rank), lines);
}

void RunDirectory::StateChanged(const proto::JobSummary& summary) {
  job_ = summary.job();
  const bool starts = summary.state() == proto::JOB_STATE_STARTING;
  if (starts && std::exchange(started_, true)) ++restarts_;
  StateIs(summary.state(), summary.reason());
}

void RunDirectory::StateIs(proto::JobState state, const std::string& reason) {
  Event("state", fmt::format("\"job\":{},\"state\":{},\"reason\":{}", job_,
                             JsonText(JobStateName(state)), JsonText(reason)));
}

std::vector<std::string> RunDirectory::CloseFiles() {
  if (tensorboard_) NoteStream("tb", tensorboard_->Close());
  tensorboard_.reset();
  std::vector<std::string> missing;
  for (const auto& [name, trouble] : troubles_) missing.push_back(trouble);
  for (auto& [name, file] : records_) {
    file.Close();
    if (file.num_missing() == 0) continue;
    missing.push_back(fmt::format("{} lacks {} of {} lines: {}", name, file.num_missing(),
                                  file.num_lines(), file.trouble()));
  }
  return missing;
}

// A run whose records are not whole has not succeeded.
void RunDirectory::AddMissing(proto::JobResult& result, std::vector<std::string> missing) const {
  for (std::string& sentence : missing) result.add_missing_records(std::move(sentence));
  if (result.missing_records_size() == 0 || result.state() != proto::JOB_STATE_SUCCEEDED) return;
  result.set_state(proto::JOB_STATE_FAILED);
  result.set_exit_code(ExitCode(ErrorCode::kFailed));
  result.set_reason(fmt::format("the job ran to its end, but its records are incomplete: {}",
                                result.missing_records(0)));
}

// What the news of a lost host may not have told; and none that was removed with its folder.
void RunDirectory::NameTheCheckpointThatIsThere(proto::JobResult& result) const {
  if (!result.checkpoint().empty() && !files_.Exists(result.checkpoint())) {
    result.clear_checkpoint();
    result.clear_checkpoint_step();
  }
  const auto newest = FindNewestCheckpoint(files_, In("checkpoints"));
  if (newest.ok() && *newest && (*newest)->manifest.step > result.checkpoint_step()) {
    result.set_checkpoint((*newest)->folder);
    result.set_checkpoint_step((*newest)->manifest.step);
  }
}

std::string RunDirectory::ResultText(const proto::JobResult& result) const {
  std::string text = ResultJson(result);
  text.pop_back();
  if (!memory_.empty()) text += ",\"memory\":" + MemoryRowsJson(memory_);
  if (!communication_.empty()) {
    text += ",\"communication\":" + CommunicationRowsJson(communication_);
  }
  if (const std::string attention = AttentionJson(communication_); !attention.empty()) {
    text += ",\"attention\":" + attention;
  }
  if (!last_metrics_.empty()) text += ",\"metrics\":" + last_metrics_;
  return text + "}";
}

void RunDirectory::Ended(const proto::JobResult& result,
                         std::function<void(const proto::JobResult&)> done) {
  proto::JobResult told = result;
  if (!begun_) {  // it never began
    auto lock = Enter();
    if (!lock.ok()) return done(told);  // the folder is another job's
    lock_ = *std::move(lock);
    begun_ = true;
    for (const auto& [name, text] : std::exchange(early_, {})) Append(name, text);
  }
  Draw();
  if (traces_) {
    NoteStream("trace", traces_->Finish());
    TellLeftOutSpans();
    if (traces_->spans_left_out() > 0) {
      Event("trace_full", fmt::format("\"spans_left_out\":{}", traces_->spans_left_out()));
    }
    traces_.reset();
  }
  StateIs(told.state(), told.reason());
  NameTheCheckpointThatIsThere(told);
  AddMissing(told, CloseFiles());
  if (!gone_) {
    const Status written = WriteFileAtomically(files_, In("result.json"), ResultText(told) + "\n");
    if (!written.ok()) AddMissing(told, {written.error().message});
  }
  claim_.RemoveFrom(files_, path_);
  lock_.reset();
  done(told);
}

}  // namespace troupe
