#include "coordinator/report/run_directory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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

constexpr int64_t kMetricsBytesMax = int64_t{256} << 20;
constexpr double kGibibyte = 1 << 30;

double Seconds(int64_t wall_us) { return static_cast<double>(wall_us) * 1e-6; }

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string HostName() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : "host";
}

// The step that a run goes on from: 0 for a fresh one.
Result<int64_t> FirstStepAfter(FileSystem& files, const proto::SubmitRequest& request) {
  const std::string& checkpoint = request.resume_from();
  if (checkpoint.empty() || StartsNewRun(request.spec(), request.run_directory(), checkpoint)) {
    return int64_t{0};
  }
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(files, checkpoint));
  return manifest.step;
}

}  // namespace

RunDirectory::RunDirectory(FileSystem& files, Clock& clock, std::string path)
    : files_(files), clock_(clock), path_(std::move(path)) {}

// ---- opening ---------------------------------------------------------------------------------

Status RunDirectory::Open(const proto::SubmitRequest& request) {
  spec_ = request.spec();
  num_workers_ = std::max(1, request.spec().resources().workers());
  command_line_ = request.command_line();
  opened_ns_ = drawn_ns_ = clock_.NowNs();
  RETURN_IF_ERROR(files_.CreateDirectories(In("logs")));
  RETURN_IF_ERROR(WriteFileAtomically(files_, In("job.yaml"), request.job_file()));
  RETURN_IF_ERROR(WriteFileAtomically(files_, In("job.effective.yaml"), request.effective_file()));
  ASSIGN_OR_RETURN(const JobPlan plan, MakeJobPlan(request.spec()));
  RETURN_IF_ERROR(WritePlan(plan));
  pictures_.emplace(request.spec().name(), plan, ThisVectorIsa());
  WriteEnvironment();
  RETURN_IF_ERROR(OpenMetrics(request));
  if (request.point_latest()) {  // D3
    const Status linked = files_.PointLink(JoinPath(FolderOf(path_), "latest"), BaseName(path_));
    if (!linked.ok()) Talk("{}\n", linked.error().message);
  }
  return {};
}

Status RunDirectory::WritePlan(const JobPlan& plan) {
  return WriteFileAtomically(files_, In("plan.json"),
                             PlanJson(spec_, plan, ThisVectorIsa()) + "\n");
}

Status RunDirectory::OpenMetrics(const proto::SubmitRequest& request) {
  ASSIGN_OR_RETURN(const int64_t step, FirstStepAfter(files_, request));
  RETURN_IF_ERROR(CutBackToStep(files_, In("metrics.jsonl"), step));
  if (step > 0) RETURN_IF_ERROR(ReadEarlierLosses());
  if (request.spec().log().tensorboard()) RETURN_IF_ERROR(OpenTensorboard(step));
  if (!request.spec().log().trace()) return {};
  RETURN_IF_ERROR(files_.CreateDirectories(In("trace")));
  const std::string name = fmt::format("trace/step-{:08}.json", step + 1);
  ASSIGN_OR_RETURN(trace_, TraceFile::Create(files_, In(name)));
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

// So that a resumed run's picture shows the whole curve.
Status RunDirectory::ReadEarlierLosses() {
  if (!files_.Exists(In("metrics.jsonl"))) return {};
  ASSIGN_OR_RETURN(const std::string text, files_.ReadFile(In("metrics.jsonl"), kMetricsBytesMax));
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const auto line = nlohmann::json::parse(text.begin() + static_cast<std::ptrdiff_t>(start),
                                            text.begin() + static_cast<std::ptrdiff_t>(end),
                                            nullptr, /*allow_exceptions=*/false);
    start = end + 1;
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) continue;
    const auto step = line["step"].get<int64_t>();
    if (line.contains("loss") && line["loss"].is_number()) {
      pictures_->AddLoss(step, line["loss"].get<double>());
    } else if (line.contains("val/loss") && line["val/loss"].is_number()) {
      pictures_->AddValidationLoss(step, line["val/loss"].get<double>());
    }
  }
  return {};
}

// ---- writing ---------------------------------------------------------------------------------

void RunDirectory::Note(const Status& status) {
  if (status.ok() || std::exchange(complained_, true)) return;
  Talk("the run's records are incomplete from now on: {}\n", status.error().message);
}

void RunDirectory::Append(const std::string& name, const std::string& text) {
  auto file = open_.find(name);
  if (file == open_.end()) {
    auto opened = files_.OpenForWrite(In(name), WriteMode::kAppend);
    if (!opened.ok()) return Note(std::move(opened).error());
    file = open_.emplace(name, *std::move(opened)).first;
  }
  Note(file->second->Append(BytesOf(text)));
}

void RunDirectory::Event(std::string_view kind, std::string_view fields) {
  Append("events.jsonl",
         fmt::format("{{\"time\":{:.6f},\"event\":\"{}\"{}{}}}\n", Seconds(clock_.WallUs()), kind,
                     fields.empty() ? "" : ",", fields));
}

void RunDirectory::Scalar(int64_t step, std::string_view tag, double value) {
  if (tensorboard_) {
    Note(tensorboard_->AddScalar(Seconds(clock_.WallUs()), step, tag, value));
  }
}

void RunDirectory::Draw() {
  drawn_ns_ = clock_.NowNs();
  if (!pictures_) return;
  const std::pair<const char*, std::string> pictures[] = {
      {"schedule.svg", pictures_->ScheduleSvg()}, {"schedule.csv", pictures_->ScheduleCsv()},
      {"costs.json", pictures_->CostsJson()},     {"loss.svg", pictures_->LossSvg()},
      {"memory.svg", pictures_->MemorySvg()},     {"memory.json", MemoryJson(memory_)}};
  for (const auto& [name, text] : pictures) {
    if (!text.empty()) Note(ReplaceFile(files_, In(name), text));
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
  Note(WriteFileAtomically(files_, In("env.json"), text));
}

// ---- hearing ---------------------------------------------------------------------------------

void RunDirectory::Placed(const std::vector<std::string>& hosts) { hosts_ = hosts; }

void RunDirectory::Planned(const std::vector<proto::Parallelism>& orders) {
  const auto plan = MakeJobPlan(spec_, orders);
  if (!plan.ok()) return;  // then no rank can plan either, and says so
  Note(WritePlan(*plan));
  if (pictures_) pictures_->Replan(*plan, ThisVectorIsa());
}

void RunDirectory::RankStarted(int32_t rank, const proto::Hello& hello) {
  clocks_.Add(rank, hello.steady_ns(), hello.wall_us());
  hellos_[rank] = hello;
  if (trace_) trace_->NameRank(rank, fmt::format("rank {} (pid {})", rank, hello.pid()));
  if (hellos_.size() == static_cast<size_t>(num_workers_)) WriteEnvironment();
}

void RunDirectory::RankReady(int32_t rank, const proto::Ready& ready) {
  JsonLine lanes;
  for (const auto& lane : ready.lanes()) lanes.Add(std::to_string(lane.peer()), lane.lane());
  Event("ready", fmt::format("\"rank\":{},\"lanes\":{}", rank, lanes.Text()));
}

void RunDirectory::StepDone(const proto::StepMetrics& m) {
  last_metrics_ = MetricsJson(m, num_workers_, clock_.WallUs(), peaks_);
  Append("metrics.jsonl", last_metrics_ + "\n");
  Scalar(m.step(), "train/loss", m.loss());
  Scalar(m.step(), "train/grad_norm", m.grad_norm());
  Scalar(m.step(), "train/lr", m.lr());
  Scalar(m.step(), "perf/tokens_per_second", m.tokens_per_second());
  Scalar(m.step(), "perf/bubble", m.bubble_fraction());
  int64_t fullest = 0;
  for (const auto& [rank, peak] : peaks_) fullest = std::max(fullest, peak);
  if (fullest > 0) {
    Scalar(m.step(), "memory/peak_gib", static_cast<double>(fullest) / kGibibyte);
  }
  if (pictures_) {
    pictures_->AddLoss(m.step(), m.loss());
    pictures_->AddStep(m.step(), m.order());
  }
  if (clock_.NowNs() - drawn_ns_ > int64_t{kDrawEveryMs} * 1'000'000) Draw();
}

void RunDirectory::Evaluated(const proto::EvalMetrics& m) {
  Append("metrics.jsonl", EvalJson(m, clock_.WallUs()) + "\n");
  Scalar(m.step(), "val/loss", m.val_loss());
  if (pictures_) pictures_->AddValidationLoss(m.step(), m.val_loss());
}

void RunDirectory::Traced(int32_t rank, const proto::SpanBatch& batch) {
  for (proto::Span span : batch.spans()) {
    span.set_start_ns(clocks_.CommonNs(rank, span.start_ns()));
    span.set_end_ns(clocks_.CommonNs(rank, span.end_ns()));
    if (trace_) trace_->Add(rank, span);
    if (pictures_) pictures_->AddSpan(rank, span);
  }
  if (trace_) Note(trace_->Flush());
  if (batch.dropped() > 0) {
    Event("spans_lost", fmt::format("\"rank\":{},\"count\":{}", rank, batch.dropped()));
  }
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
  Event("state", fmt::format("\"job\":{},\"state\":{},\"reason\":{}", summary.job(),
                             JsonText(JobStateName(summary.state())), JsonText(summary.reason())));
}

void RunDirectory::Ended(const proto::JobResult& result, std::function<void()> done) {
  Draw();
  if (trace_) {
    if (trace_->spans_left_out() > 0) {
      Event("trace_full", fmt::format("\"spans_left_out\":{}", trace_->spans_left_out()));
    }
    Note(trace_->Finish());
    trace_.reset();
  }
  if (tensorboard_) Note(tensorboard_->Close());
  std::string text = ResultJson(result);
  if (!last_metrics_.empty()) {
    text.pop_back();
    text += ",\"metrics\":" + last_metrics_ + "}";
  }
  Note(WriteFileAtomically(files_, In("result.json"), text + "\n"));
  for (auto& [name, file] : open_) Note(file->Close());
  open_.clear();
  done();
}

}  // namespace troupe
