#include "coordinator/job/resume.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "actors/plan/learning_rate.h"
#include "runtime/format/checkpoint_manifest.h"

namespace troupe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr const char* kCheckpointsFolder = "checkpoints";

// A key, or a group of keys, that a resumed run may change.
constexpr std::array<std::string_view, 14> kMayDiffer = {"name",
                                                         "parallelism",
                                                         "resources.workers",
                                                         "log",
                                                         "eval",
                                                         "checkpoint",
                                                         "train.steps",
                                                         "train.stop_after",
                                                         "model.config",
                                                         "model.init_from",
                                                         "model.ignore_extra_tensors",
                                                         "model.bos_token_id",
                                                         "model.eos_token_id",
                                                         "model.pad_token_id"};

std::string Shown(const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  if (field.is_repeated()) {
    std::vector<std::string> values;
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
      std::string text;
      google::protobuf::TextFormat::PrintFieldValueToString(message, &field, i, &text);
      values.push_back(std::move(text));
    }
    return fmt::format("[{}]", fmt::join(values, ", "));
  }
  if (!reflection.HasField(message, &field)) return "not given";
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
    return fmt::format("{}", reflection.GetDouble(message, &field));
  }
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    return reflection.GetString(message, &field);
  }
  std::string text;
  google::protobuf::TextFormat::PrintFieldValueToString(message, &field, -1, &text);
  return text;
}

void Compare(const Message& saved, const Message& now, const std::string& path,
             std::vector<std::string>& differences) {
  const auto& type = *saved.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string full = path.empty() ? field.name() : path + "." + field.name();
    if (std::ranges::find(kMayDiffer, full) != kMayDiffer.end()) continue;
    if (!field.is_repeated() && field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Compare(saved.GetReflection()->GetMessage(saved, &field),
              now.GetReflection()->GetMessage(now, &field), full, differences);
      continue;
    }
    const std::string was = Shown(saved, field);
    const std::string is = Shown(now, field);
    if (was != is) differences.push_back(fmt::format("{} was {}, is {}", full, was, is));
  }
}

Result<std::optional<FoundCheckpoint>> Wanted(FileSystem& files, const std::string& resume,
                                              const std::string& run_directory) {
  if (resume == "auto") {
    if (run_directory.empty()) return std::optional<FoundCheckpoint>();
    return FindNewestCheckpoint(files, JoinPath(run_directory, kCheckpointsFolder));
  }
  if (files.Exists(JoinPath(resume, "manifest.json"))) {
    ASSIGN_OR_RETURN(auto manifest, ReadManifest(files, resume));
    return std::optional(FoundCheckpoint{resume, std::move(manifest)});
  }
  for (const std::string& folder : {JoinPath(resume, kCheckpointsFolder), resume}) {
    ASSIGN_OR_RETURN(auto found, FindNewestCheckpoint(files, folder));
    if (found) return found;
  }
  return MakeError(ErrorCode::kNotFound,
                   "there is no committed checkpoint: give the folder of one "
                   "(…/checkpoints/step-…), or of a run that has one");
}

Status CheckStepsLeft(const proto::Train& train, const FoundCheckpoint& found) {
  const bool stops = train.stop_after() > 0;
  const int64_t last = stops ? train.stop_after() : train.steps();
  if (found.manifest.step < last) return {};
  return MakeError(ErrorCode::kInvalidSpec,
                   "{} = {}: the checkpoint {} is already at step {}: raise it, or resume from an "
                   "earlier one",
                   stops ? "train.stop_after" : "train.steps", last, found.folder,
                   found.manifest.step);
}

// decay_steps follows train.steps unless someone gave it; then it does not count as a difference.
void FollowSteps(proto::JobSpec& spec) {
  if (spec.lr_scheduler().decay_steps() == DefaultDecaySteps(spec)) {
    spec.mutable_lr_scheduler()->clear_decay_steps();
  }
}

}  // namespace

std::vector<std::string> ForbiddenDifferences(const proto::JobSpec& saved,
                                              const proto::JobSpec& now) {
  proto::JobSpec was = saved;
  proto::JobSpec is = now;
  FollowSteps(was);
  FollowSteps(is);
  std::vector<std::string> differences;
  Compare(was, is, "", differences);
  return differences;
}

Result<std::string> ResolveResume(FileSystem& files, const std::string& run_directory,
                                  LoadedJob& job) {
  const std::string& resume = job.spec.checkpoint().resume();
  if (resume.empty() || resume == "never") return std::string();
  auto wanted = Wanted(files, resume, run_directory);
  if (!wanted.ok()) {
    return AtPlace(job, Context("checkpoint.resume = " + resume, std::move(wanted).error()));
  }
  const std::optional<FoundCheckpoint> found = *std::move(wanted);
  if (!found) return std::string();
  proto::JobSpec saved;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  if (!google::protobuf::util::JsonStringToMessage(found->manifest.job_json, &saved, options)
           .ok()) {
    return MakeError(ErrorCode::kCorrupt, "{}: its manifest holds no job", found->folder);
  }
  const auto origin = job.provenance.find("batch.gradient_groups");
  if (origin == job.provenance.end() || origin->second.source == "default") {
    job.spec.mutable_batch()->set_gradient_groups(found->manifest.gradient_groups);
    job.provenance["batch.gradient_groups"] = {.source = "checkpoint"};
    job.effective_text = EffectiveYaml(job.spec, job.provenance);
  }
  if (Status left = CheckStepsLeft(job.spec.train(), *found); !left.ok()) {
    return AtPlace(job, std::move(left).error());
  }
  std::vector<std::string> sentences;
  for (const std::string& difference : ForbiddenDifferences(saved, job.spec)) {
    Error error = MakeError(ErrorCode::kInvalidSpec,
                            "{}: {} cannot be resumed so: give the old value, or start afresh with "
                            "checkpoint.resume=never and another --run-dir",
                            difference, found->folder);
    sentences.push_back(AtPlace(job, std::move(error)).message);
  }
  if (!sentences.empty()) {
    return MakeError(ErrorCode::kInvalidSpec, "{}", fmt::join(sentences, "\n"));
  }
  return found->folder;
}

}  // namespace troupe
