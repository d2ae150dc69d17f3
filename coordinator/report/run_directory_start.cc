// How a job's folder becomes its own: from the submission over the queue to its first record, and
// anew where it is removed. The first part of RunDirectory.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "actors/plan/job_plan.h"
#include "actors/plan/resumption.h"
#include "coordinator/report/run_directory.h"
#include "runtime/format/checkpoint_manifest.h"
#include "runtime/format/metrics_file.h"

namespace troupe {
namespace {

constexpr int64_t kEveryStep = std::numeric_limits<int64_t>::max();

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// The step that a run goes on from: 0 for a fresh one.
Result<int64_t> FirstStepAfter(FileSystem& files, const proto::JobSpec& spec,
                               const std::string& run_directory, const std::string& checkpoint) {
  if (checkpoint.empty() || StartsNewRun(spec, run_directory, checkpoint)) return int64_t{0};
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(files, checkpoint));
  return manifest.step;
}

// For whoever finds the folder locked.
std::string Holder() {
  return fmt::format("a job of coordinator process {} on host {}", ::getpid(), ThisHost());
}

Status PointLatest(FileSystem& files, const std::string& link, const std::string& path) {
  RETURN_IF_ERROR(files.CreateDirectories(FolderOf(link)));
  return files.PointLink(link, FolderOf(link) == FolderOf(path) ? BaseName(path) : path);
}

}  // namespace

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
  const double now = static_cast<double>(clock_.WallUs()) * 1e-6;
  const auto earlier = std::ranges::find_if(
      names, [](const std::string& name) { return name.starts_with("events.out.tfevents."); });
  const std::string name = earlier == names.end()
                               ? TensorboardFileName(clock_.WallUs() / 1'000'000, ThisHost())
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
    if (line.contains("loss")) {
      ++steps;
      if (line["loss"].is_number()) pictures_->AddLoss(step, line["loss"].get<double>());
    } else if (line.contains("val/loss") && line["val/loss"].is_number()) {
      pictures_->AddValidationLoss(step, line["val/loss"].get<double>());
    }
  };
  RETURN_IF_ERROR(ForEachLine(files_, In("metrics.jsonl"), add));
  return steps;
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

}  // namespace troupe
