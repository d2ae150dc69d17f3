#include "coordinator/report/run_directory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "actors/plan/job_plan.h"
#include "actors/plan/resumption.h"
#include "coordinator/report/plan_report.h"
#include "runtime/base/talk.h"
#include "runtime/format/checkpoint_manifest.h"
#include "runtime/format/metrics_file.h"

namespace troupe {
namespace {

constexpr int64_t kEveryStep = std::numeric_limits<int64_t>::max();
constexpr double kGibibyte = 1 << 30;

double Seconds(int64_t wall_us) { return static_cast<double>(wall_us) * 1e-6; }

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string HostName() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : "host";
}

// The step that a run goes on from: 0 for a fresh one.
Result<int64_t> FirstStepAfter(FileSystem& files, const proto::JobSpec& spec,
                               const std::string& run_directory, const std::string& checkpoint) {
  if (checkpoint.empty() || StartsNewRun(spec, run_directory, checkpoint)) return int64_t{0};
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(files, checkpoint));
  return manifest.step;
}

// For whoever finds the folder locked.
std::string Holder() {
  return fmt::format("a job of coordinator process {} on host {}", ::getpid(), HostName());
}

Status PointLatest(FileSystem& files, const std::string& link, const std::string& path) {
  RETURN_IF_ERROR(files.CreateDirectories(FolderOf(link)));
  return files.PointLink(link, FolderOf(link) == FolderOf(path) ? BaseName(path) : path);
}

}  // namespace

RunDirectory::RunDirectory(FileSystem& files, Clock& clock, std::string path,
                           std::function<void(const std::string&)> on_trouble)
    : files_(files), clock_(clock), path_(std::move(path)), on_trouble_(std::move(on_trouble)) {}

// ---- opening ---------------------------------------------------------------------------------

FolderUse RunDirectory::UseOf(const proto::SubmitRequest& request) const {
  if (request.resume_from().starts_with(path_ + "/")) return FolderUse::kGoOn;
  return request.overwrite() ? FolderUse::kMoveAside : FolderUse::kRefuse;
}

Status RunDirectory::Open(const proto::SubmitRequest& request) {
  spec_ = request.spec();
  num_workers_ = std::max(1, request.spec().resources().workers());
  command_line_ = request.command_line();
  resume_from_ = request.resume_from();
  latest_ = request.latest();
  // Held while the folder is filled; a job that waits in the queue holds no descriptor.
  ASSIGN_OR_RETURN(const auto lock, TakeRunFolder(files_, path_, UseOf(request), Holder()));
  RETURN_IF_ERROR(claim_.WriteTo(files_, path_));
  RETURN_IF_ERROR(files_.CreateDirectories(In("logs")));
  RETURN_IF_ERROR(WriteFileAtomically(files_, In("job.yaml"), request.job_file()));
  RETURN_IF_ERROR(WriteFileAtomically(files_, In("job.effective.yaml"), request.effective_file()));
  ASSIGN_OR_RETURN(const JobPlan plan, MakeJobPlan(request.spec()));
  RETURN_IF_ERROR(WritePlan(plan));
  pictures_.emplace(request.spec().name(), plan, ThisVectorIsa());
  WriteEnvironment();
  return {};
}

void RunDirectory::Begin(const std::vector<std::string>& hosts, std::function<void(Status)> done) {
  hosts_ = hosts;
  opened_ns_ = drawn_ns_ = clock_.NowNs();
  Status opened = OpenFiles();
  begun_ = opened.ok();
  if (!opened.ok()) lock_.reset();
  if (opened.ok()) claim_.RemoveFrom(files_, path_);  // the lock says so from now on
  for (const auto& [name, text] : std::exchange(early_, {})) Append(name, text);
  done(std::move(opened));
}

Result<std::unique_ptr<FileLock>> RunDirectory::Enter() {
  const bool claimed = claim_.IsIn(files_, path_);
  if (!claimed) {
    return MakeError(ErrorCode::kFailed,
                     "--run-dir {} was removed or taken by another run while this job waited: "
                     "submit it again",
                     path_);
  }
  // What this job wrote into it at its submission is no earlier run.
  return TakeRunFolder(files_, path_, FolderUse::kGoOn, Holder(), &claim_);
}

Status RunDirectory::OpenFiles() {
  ASSIGN_OR_RETURN(lock_, Enter());
  RETURN_IF_ERROR(CutBackToStep(files_, In("events.jsonl"), kEveryStep));
  RETURN_IF_ERROR(OpenMetrics());
  (void)files_.RemoveAll(In("result.json"));  // an earlier end; nothing lost where that fails
  if (latest_.empty()) return {};
  const Status linked = PointLatest(files_, latest_, path_);  // D3
  if (!linked.ok()) Tell(latest_, linked.error().message);
  return {};
}

Status RunDirectory::WritePlan(const JobPlan& plan) {
  return WriteFileAtomically(files_, In("plan.json"),
                             PlanJson(spec_, plan, ThisVectorIsa()) + "\n");
}

Status RunDirectory::OpenMetrics() {
  ASSIGN_OR_RETURN(const int64_t step, FirstStepAfter(files_, spec_, path_, resume_from_));
  RETURN_IF_ERROR(CutBackToStep(files_, In("metrics.jsonl"), step));
  if (step > 0) {
    ASSIGN_OR_RETURN(const int64_t steps_there, ReadEarlierLosses());
    ++restarts_;
    if (steps_there < step && resume_from_.starts_with(path_ + "/") && on_trouble_) {
      on_trouble_(
          fmt::format("metrics.jsonl holds {} of the {} steps before this one", steps_there, step));
    }
  }
  if (spec_.log().tensorboard()) RETURN_IF_ERROR(OpenTensorboard(step));
  traces_.emplace(files_, clock_, clocks_, In("trace"), TraceWindow(spec_.log().trace(), step + 1));
  return {};
}

Status RunDirectory::OpenTensorboard(int64_t keep_through_step) {
  RETURN_IF_ERROR(files_.CreateDirectories(In("tb")));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, files_.List(In("tb")));
  const double now = Seconds(clock_.WallUs());
  const auto earlier = std::ranges::find_if(
      names, [](const std::string& name) { return name.starts_with("events.out.tfevents."); });
  const std::string name = earlier == names.end()
                               ? TensorboardFileName(static_cast<int64_t>(now), HostName())
                               : *earlier;
  ASSIGN_OR_RETURN(tensorboard_,
                   TensorboardWriter::Open(files_, In("tb/" + name), now, keep_through_step));
  return {};
}

// So that a resumed run's picture shows the whole curve. The number of steps.
Result<int64_t> RunDirectory::ReadEarlierLosses() {
  int64_t steps = 0;
  const auto add = [this, &steps](std::string_view text) {
    const auto line = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) return;
    const auto step = line["step"].get<int64_t>();
    if (line.contains("restarts") && line["restarts"].is_number_integer()) {
      restarts_ = line["restarts"].get<int64_t>();
    }
    if (line.contains("loss") && line["loss"].is_number()) {
      pictures_->AddLoss(step, line["loss"].get<double>());
      ++steps;
    } else if (line.contains("val/loss") && line["val/loss"].is_number()) {
      pictures_->AddValidationLoss(step, line["val/loss"].get<double>());
    }
  };
  RETURN_IF_ERROR(ForEachLine(files_, In("metrics.jsonl"), add));
  return steps;
}

// ---- writing ---------------------------------------------------------------------------------

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

bool RunDirectory::HasFolder() {
  if (gone_) return false;
  if (lock_ != nullptr && lock_->StillNamed()) return true;
  lock_.reset();
  const std::string trouble = fmt::format("{} was removed or moved while the job ran", path_);
  troubles_["the folder"] = trouble;
  Tell("the folder", trouble);
  auto anew = TakeRunFolder(files_, path_, FolderUse::kRefuse, Holder());
  if (anew.ok()) {
    lock_ = *std::move(anew);
  } else if (anew.error().code == ErrorCode::kInvalidSpec) {
    gone_ = true;
    records_.clear();
    traces_.reset();
    tensorboard_.reset();
  }
  return !gone_;
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
  json["coordinator_host"] = HostName();
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
  Scalar(m.step(), "train/loss", m.loss());
  Scalar(m.step(), "train/grad_norm", m.grad_norm());
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
    pictures_->AddLoss(m.step(), m.loss());
    pictures_->AddStep(m.step(), m.order(), m.step_seconds());
  }
  if (traces_) NoteStream("trace", traces_->StepDone(m.step()));
  TellLeftOutSpans();
  if (clock_.NowNs() - drawn_ns_ > int64_t{kDrawEveryMs} * 1'000'000) Draw();
}

void RunDirectory::Evaluated(const proto::EvalMetrics& m) {
  Append("metrics.jsonl", EvalJson(m, clock_.WallUs()) + "\n");
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
  for (auto& [name, file] : records_) {
    file.Close();
    if (file.num_missing() == 0) continue;
    missing.push_back(fmt::format("{} lacks {} of {} lines: {}", name, file.num_missing(),
                                  file.num_lines(), file.trouble()));
  }
  for (const auto& [name, trouble] : troubles_) missing.push_back(trouble);
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
  std::string text = ResultJson(told);
  if (!last_metrics_.empty()) {
    text.pop_back();
    text += ",\"metrics\":" + last_metrics_ + "}";
  }
  if (!gone_) {
    const Status written = WriteFileAtomically(files_, In("result.json"), text + "\n");
    if (!written.ok()) AddMissing(told, {written.error().message});
  }
  claim_.RemoveFrom(files_, path_);
  lock_.reset();
  done(told);
}

}  // namespace troupe
