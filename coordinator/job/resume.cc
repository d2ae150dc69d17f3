#include "coordinator/job/resume.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "actors/plan/context_parallel_keys.h"
#include "actors/plan/job_plan.h"
#include "actors/plan/resumption.h"
#include "coordinator/job/job_defaults.h"
#include "coordinator/job/job_differences.h"
#include "runtime/format/checkpoint_reader.h"
#include "runtime/format/content_identity.h"

namespace troupe {
namespace {

constexpr const char* kCheckpointsFolder = "checkpoints";

// A checkpoint that was read whole.
struct Chosen {
  std::string folder{};
  CheckpointManifest manifest{};
};

Result<Chosen> Verified(FileSystem& files, const std::string& folder,
                        std::vector<std::string>& notes) {
  ASSIGN_OR_RETURN(CheckpointReport report, CheckCheckpoint(files, folder));
  if (!report.damage.empty()) {
    const size_t others = report.damage.size() - 1;
    return MakeError(ErrorCode::kCorrupt, "{}{}", report.damage.front(),
                     others == 0 ? "" : fmt::format(" (and {} more in {})", others, folder));
  }
  if (!report.has_digests) {
    notes.push_back(fmt::format(
        "{} is of an earlier build and has no digests: it is taken unverified", folder));
  }
  return Chosen{folder, std::move(report.manifest)};
}

// Of an auto start: what is damaged is passed over, and said.
Result<std::optional<Chosen>> NewestWhole(FileSystem& files, const std::string& run_directory,
                                          std::vector<std::string>& notes) {
  std::optional<Chosen> none;
  if (run_directory.empty()) return none;
  ASSIGN_OR_RETURN(const auto folders,
                   CommittedCheckpoints(files, JoinPath(run_directory, kCheckpointsFolder)));
  std::vector<std::string> damaged;
  for (const std::string& folder : folders) {
    auto chosen = Verified(files, folder, notes);
    if (!chosen.ok()) {
      damaged.push_back(std::move(chosen).error().message);
      continue;
    }
    for (const std::string& sentence : damaged) {
      notes.push_back(fmt::format("passed over: {}", sentence));
    }
    return std::optional(*std::move(chosen));
  }
  if (damaged.empty()) return none;
  return MakeError(ErrorCode::kCorrupt,
                   "no checkpoint is whole: {}: start afresh with checkpoint.resume=never in "
                   "another --run-dir",
                   fmt::join(damaged, "; "));
}

Result<std::optional<Chosen>> Wanted(FileSystem& files, const std::string& resume,
                                     const std::string& run_directory,
                                     std::vector<std::string>& notes) {
  if (resume == "auto") return NewestWhole(files, run_directory, notes);
  std::vector<std::string> folders;
  if (files.Exists(JoinPath(resume, "manifest.json"))) folders.push_back(resume);
  for (const std::string& parent : {JoinPath(resume, kCheckpointsFolder), resume}) {
    if (!folders.empty()) break;
    ASSIGN_OR_RETURN(folders, CommittedCheckpoints(files, parent));
  }
  if (folders.empty()) {
    return MakeError(ErrorCode::kNotFound,
                     "there is no committed checkpoint: give the folder of one "
                     "(…/checkpoints/step-…), or of a run that has one");
  }
  auto chosen = Verified(files, folders.front(), notes);
  if (chosen.ok()) return std::optional(*std::move(chosen));
  return MakeError(chosen.error().code,
                   "{}: take an earlier one by its path{}, or the newest whole one of --run-dir "
                   "with auto",
                   chosen.error().message,
                   folders.size() > 1 ? fmt::format(" ({})", folders[1]) : "");
}

// What a run still does when its steps are done.
std::vector<std::string> LeftAfterTheLastStep(const proto::JobSpec& spec) {
  std::vector<std::string> left;
  if (spec.eval().every() > 0) left.emplace_back("evaluates");
  if (spec.checkpoint().save_hf()) left.emplace_back("exports hf/");
  if (spec.eval().has_sample()) left.emplace_back("samples");
  if (spec.eval().has_check_against()) left.emplace_back("compares with one worker");
  return left;
}

Status CheckStepsLeft(const proto::JobSpec& spec, const Chosen& chosen,
                      std::vector<std::string>& notes) {
  const proto::Train& train = spec.train();
  const bool stops = train.stop_after() > 0;
  const int64_t last = stops ? train.stop_after() : train.steps();
  if (chosen.manifest.step < last) return {};
  const auto left = LeftAfterTheLastStep(spec);
  if (chosen.manifest.step > last || left.empty()) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "{} = {}: the checkpoint {} is already at step {}: raise it, or resume from "
                     "an earlier one",
                     stops ? "train.stop_after" : "train.steps", last, chosen.folder,
                     chosen.manifest.step);
  }
  const CheckpointManifest& manifest = chosen.manifest;
  const bool repeatable =
      !manifest.took_over_updates() && !manifest.data_changed && !manifest.groups_changed;
  if (spec.eval().has_check_against() && !repeatable) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "eval.check_against = {}: its steps are done, and one worker cannot repeat "
                     "them from the first: the run {}: leave it out",
                     spec.eval().check_against(),
                     manifest.data_changed     ? "went on with other data"
                     : manifest.groups_changed ? "went on with other sums of gradients"
                                               : "began from another run's checkpoint");
  }
  notes.push_back(fmt::format("all {} steps are done: what is left is that it {}", last,
                              fmt::join(left, ", ")));
  return {};
}

// The value that a resumed job takes over in place of what it says itself.
void TakeOver(LoadedJob& job, const std::string& key) {
  job.provenance[key] = {.source = "checkpoint"};
  job.effective_text = EffectiveYaml(job.spec, job.provenance);
}

bool IsGiven(const LoadedJob& job, const std::string& key) {
  const auto origin = job.provenance.find(key);
  return origin != job.provenance.end() && origin->second.source != "default";
}

void CheckData(FileSystem& files, const proto::JobSpec& saved, const Chosen& chosen,
               const proto::JobSpec& now, std::vector<Error>& errors,
               std::vector<std::string>& notes) {
  const std::string& path = now.data().train();
  std::string difference;
  if (chosen.manifest.data) {
    const auto content = IdentityOfFile(files, path);
    if (!content.ok()) return errors.push_back(content.error());
    difference = Difference(*chosen.manifest.data, *content);
    if (!difference.empty()) difference = "it " + difference;
  } else if (saved.data().train() != path) {  // of an earlier build: the path is all there is
    difference = fmt::format("it was {}", saved.data().train());
  }
  if (difference.empty()) return;
  if (now.data().allow_change()) {
    notes.push_back(fmt::format(
        "data.train = {}: {}: goes on with other data than before, as data.allow_change says", path,
        difference));
    return;
  }
  errors.push_back(MakeError(ErrorCode::kInvalidSpec,
                             "data.train = {}: {}: these are not the data of {}: give the same "
                             "bytes (under any path), or set data.allow_change=true",
                             path, difference, chosen.folder));
}

// The weights that a run began with are in its checkpoints; other ones were named by mistake.
void CheckInitialWeights(FileSystem& files, const Chosen& chosen, const proto::JobSpec& now,
                         std::vector<Error>& errors) {
  if (!chosen.manifest.init_from || !now.model().has_init_from()) return;
  const auto content = IdentityOfWeights(files, now.model().init_from());
  if (!content.ok()) return;  // a resumed run does not read them
  const std::string difference = Difference(*chosen.manifest.init_from, *content);
  if (difference.empty()) return;
  errors.push_back(MakeError(ErrorCode::kInvalidSpec,
                             "model.init_from = {}: it {}: the run began with other weights, and "
                             "goes on with those of {}: leave it out, or give the same",
                             now.model().init_from(), difference, chosen.folder));
}

constexpr const char* kReduceKey = "parallelism.grad_reduce";
constexpr const char* kGroupsKey = "batch.gradient_groups";

// Why sums have another shape than the run's, whose groups were so many.
std::string OtherSums(const proto::JobSpec& saved, int groups, const proto::JobSpec& now) {
  const proto::Parallelism& p = now.parallelism();
  if (p.grad_reduce() != saved.parallelism().grad_reduce()) {
    return fmt::format("{} = {}: the run had {}", kReduceKey, p.grad_reduce(),
                       saved.parallelism().grad_reduce());
  }
  const std::string shared = p.cp() > 1 ? fmt::format(", parallelism.cp = {}", p.cp()) : "";
  if (p.grad_reduce() == GradReduceName(GradReduce::kStep) && WeightReplicasOf(p) > 1) {
    return fmt::format(
        "parallelism.dp = {}{}: every rank sums one group of a step's microbatches, and the run "
        "had {}",
        p.dp(), shared, groups);
  }
  return fmt::format(
      "parallelism.dp = {}{}, parallelism.schedule = {}: they need {} = {}, and the "
      "run had {}",
      p.dp(), shared, p.schedule(), kGroupsKey, now.batch().gradient_groups(), groups);
}

// Whether the layout cannot have these sums, though it has its own.
bool IsRefused(const proto::JobSpec& sums, const proto::JobSpec& own) {
  if (sums.parallelism().grad_reduce() == own.parallelism().grad_reduce() &&
      sums.batch().gradient_groups() == own.batch().gradient_groups()) {
    return false;
  }
  return ReadJobPlan(sums).errors.size() > ReadJobPlan(own).errors.size();
}

// Sums keep the run's shape, as far as the layout can have it and nobody asks for another.
void KeepSums(const proto::JobSpec& saved, int groups, LoadedJob& job,
              std::vector<std::string>& notes) {
  const bool own_reduce = IsGiven(job, kReduceKey);
  const bool own_groups = IsGiven(job, kGroupsKey);
  const std::string& was = saved.parallelism().grad_reduce();
  const std::string own = job.spec.parallelism().grad_reduce();
  proto::JobSpec kept = job.spec;
  if (!own_reduce) kept.mutable_parallelism()->set_grad_reduce(was);
  if (!own_groups) kept.mutable_batch()->set_gradient_groups(groups);
  if (kept.parallelism().grad_reduce() != was || IsRefused(kept, job.spec)) {
    notes.push_back(
        fmt::format("{}: from here its sums have another shape, and agree with the earlier ones "
                    "to rounding instead of bit for bit",
                    OtherSums(saved, groups, job.spec)));
    return;
  }
  if (was != own && kept.parallelism().zero_stage() >= 2 &&
      WeightReplicasOf(kept.parallelism()) > 1) {
    notes.push_back(
        fmt::format("{} = {}, as the run had it, so that its sums keep their bits: every rank "
                    "keeps all gradients until a step ends; give microbatch to share them out",
                    kReduceKey, was));
  }
  job.spec = std::move(kept);
  if (!own_reduce) TakeOver(job, kReduceKey);
  if (!own_groups) TakeOver(job, kGroupsKey);
}

constexpr const char* kGradDtypeKey = "train.grad_dtype";

// So does what they are kept in.
void KeepGradDtype(const proto::JobSpec& saved, LoadedJob& job, std::vector<std::string>& notes) {
  const std::string was = saved.train().has_grad_dtype() ? saved.train().grad_dtype() : "float32";
  if (job.spec.train().grad_dtype() == was) return;
  if (!IsGiven(job, kGradDtypeKey)) {
    job.spec.mutable_train()->set_grad_dtype(was);
    return TakeOver(job, kGradDtypeKey);
  }
  notes.push_back(
      fmt::format("{} = {}: the run had {}: from here its sums are rounded in another way",
                  kGradDtypeKey, job.spec.train().grad_dtype(), was));
}

// Queries meet their keys in another order, and ranks add up other parts of a sequence.
void TellOfContext(const proto::JobSpec& saved, const proto::JobSpec& now,
                   std::vector<std::string>& notes) {
  if (ShareSequencesAlike(saved, now)) return;
  const int ranks_before = std::max(1, saved.parallelism().cp());
  const int ranks = now.parallelism().cp();
  notes.push_back(fmt::format(
      "parallelism.cp = {}: the run had {}{}: from here its sums agree with the earlier ones to "
      "rounding instead of bit for bit",
      ranks, ranks_before,
      ranks == ranks_before ? ", with another cp_method or cp_load_balance" : ""));
}

void GoOn(FileSystem& files, const proto::JobSpec& saved, const Chosen& chosen, LoadedJob& job,
          std::vector<Error>& errors, std::vector<std::string>& notes) {
  if (job.spec.checkpoint().resume_as() == "new_run") {
    job.spec.mutable_checkpoint()->set_resume_as("same_run");
    TakeOver(job, "checkpoint.resume_as");
  }
  proto::JobSpec compared = job.spec;
  if (!IsGiven(job, kGroupsKey)) {
    compared.mutable_batch()->set_gradient_groups(saved.batch().gradient_groups());
  }
  KeepSums(saved, chosen.manifest.gradient_groups, job, notes);
  KeepGradDtype(saved, job, notes);
  TellOfContext(saved, job.spec, notes);
  if (RingSumsDiffer(saved, job.spec)) {
    notes.push_back(
        "parallelism.reduction: sums along a ring follow the number of ranks: from here they agree "
        "with the earlier ones to rounding instead of bit for bit");
  }
  if (Status left = CheckStepsLeft(job.spec, chosen, notes); !left.ok()) {
    errors.push_back(std::move(left).error());
  }
  for (const std::string& difference : ForbiddenDifferences(saved, compared)) {
    errors.push_back(MakeError(
        ErrorCode::kInvalidSpec,
        "{}: {} cannot be resumed so: give the old value; or take its weights and optimizer state "
        "into a new run with --resume {} --set checkpoint.resume_as=new_run and another --run-dir",
        difference, chosen.folder, chosen.folder));
  }
  CheckData(files, saved, chosen, job.spec, errors, notes);
  CheckInitialWeights(files, chosen, job.spec, errors);
}

void BeginNewRun(const proto::JobSpec& saved, const Chosen& chosen, const LoadedJob& job,
                 std::vector<Error>& errors, std::vector<std::string>& notes) {
  std::vector<std::string> others;
  for (const std::string& difference : ForbiddenDifferences(saved, job.spec)) {
    if (!difference.starts_with("model.")) {
      others.push_back(difference);
      continue;
    }
    errors.push_back(MakeError(ErrorCode::kInvalidSpec,
                               "{}: the weights of {} are of another model: give the old value",
                               difference, chosen.folder));
  }
  notes.push_back(fmt::format(
      "a new run with weights and optimizer state of {} ({} updates): steps, learning rate and "
      "data begin anew{}{}",
      chosen.folder, chosen.manifest.updates(), others.empty() ? "" : "; ",
      fmt::join(others, "; ")));
}

}  // namespace

ResumeReading ReadResume(FileSystem& files, const std::string& run_directory, LoadedJob& job) {
  const std::string resume = job.spec.checkpoint().resume();
  ResumeReading reading;
  if (resume.empty() || resume == "never") return reading;
  ResumePoint& point = reading.point;
  auto wanted = Wanted(files, resume, run_directory, point.notes);
  if (!wanted.ok()) {
    reading.errors.push_back(
        FindingOf(job, Context("checkpoint.resume = " + resume, std::move(wanted).error())));
    return reading;
  }
  if (!*wanted) return reading;
  const Chosen chosen = *std::move(*wanted);
  proto::JobSpec saved;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  if (!google::protobuf::util::JsonStringToMessage(chosen.manifest.job_json, &saved, options)
           .ok()) {
    reading.errors.push_back(FindingOf(
        job, MakeError(ErrorCode::kCorrupt, "{}: its manifest holds no job", chosen.folder)));
    return reading;
  }
  // Keys that the build which wrote it did not know have their defaults.
  Provenance ignored;
  ApplyDefaults(saved, ignored);
  point.folder = chosen.folder;
  std::vector<Error> errors;
  if (StartsNewRun(job.spec, run_directory, chosen.folder)) {
    BeginNewRun(saved, chosen, job, errors, point.notes);
  } else {
    GoOn(files, saved, chosen, job, errors, point.notes);
  }
  for (const Error& error : errors) reading.errors.push_back(FindingOf(job, error));
  return reading;
}

Result<ResumePoint> ResolveResume(FileSystem& files, const std::string& run_directory,
                                  LoadedJob& job) {
  ResumeReading reading = ReadResume(files, run_directory, job);
  if (reading.errors.empty()) return std::move(reading.point);
  Error joined = Joined(reading.errors);
  if (reading.errors.size() == 1) joined.code = reading.errors.front().code;
  return joined;
}

std::vector<Finding> CheckNamedCheckpoint(FileSystem& files, const LoadedJob& job) {
  const std::string& resume = job.spec.checkpoint().resume();
  if (!resume.starts_with('/')) return {};
  std::vector<std::string> notes;
  auto wanted = Wanted(files, resume, "", notes);
  if (wanted.ok()) return {};
  return {FindingOf(job, Context("checkpoint.resume = " + resume, std::move(wanted).error()))};
}

}  // namespace troupe
