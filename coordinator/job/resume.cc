#include "coordinator/job/resume.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "runtime/format/checkpoint_manifest.h"

namespace troupe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// A key or a whole section.
constexpr std::array<std::string_view, 12> kMayDiffer = {
    "name", "parallelism", "train.steps", "train.stop_after", "checkpoint", "log", "eval",
    "resources.workers",
    // Where the weights came from at first; the checkpoint has them now.
    "model.init_from", "model.config",
    // Follows train.steps where it is not given; compared by itself below.
    "lr_scheduler.decay_steps", "batch.gradient_groups"};

bool MayDiffer(const std::string& path) {
  return std::ranges::any_of(kMayDiffer, [&](std::string_view allowed) {
    return path == allowed || (path.starts_with(allowed) && path.size() > allowed.size() &&
                               path[allowed.size()] == '.');
  });
}

std::string Text(const Message& message, const FieldDescriptor& field) {
  std::string text;
  const Reflection& r = *message.GetReflection();
  if (!field.is_repeated() && !r.HasField(message, &field)) return "not given";
  google::protobuf::TextFormat::Printer printer;
  if (!field.is_repeated()) {
    printer.PrintFieldValueToString(message, &field, -1, &text);
    return text;
  }
  for (int i = 0; i < r.FieldSize(message, &field); ++i) {
    std::string one;
    printer.PrintFieldValueToString(message, &field, i, &one);
    text += (i == 0 ? "" : ", ") + one;
  }
  return "[" + text + "]";
}

void Compare(const Message& before, const Message& now, const std::string& path,
             std::vector<std::string>& differences) {
  const auto& type = *now.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string full = path.empty() ? field.name() : path + "." + field.name();
    if (MayDiffer(full)) continue;
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Compare(before.GetReflection()->GetMessage(before, &field),
              now.GetReflection()->GetMessage(now, &field), full, differences);
      continue;
    }
    const std::string was = Text(before, field);
    const std::string is = Text(now, field);
    if (was != is) differences.push_back(fmt::format("{} was {}, is {}", full, was, is));
  }
}

}  // namespace

std::vector<std::string> ForbiddenDifferences(const proto::JobSpec& before,
                                              const proto::JobSpec& now) {
  std::vector<std::string> differences;
  Compare(before, now, "", differences);
  // A horizon that was given must stay; one that follows train.steps moves with them.
  const auto follows = [](const proto::JobSpec& spec) {
    return spec.lr_scheduler().decay_steps() == spec.train().steps();
  };
  if (before.lr_scheduler().decay_steps() != now.lr_scheduler().decay_steps() &&
      !(follows(before) && follows(now))) {
    differences.push_back(fmt::format("lr_scheduler.decay_steps was {}, is {}",
                                      before.lr_scheduler().decay_steps(),
                                      now.lr_scheduler().decay_steps()));
  }
  return differences;
}

Result<std::string> ResolveResume(FileSystem& files, proto::JobSpec& spec,
                                  const std::string& run_directory) {
  const std::string resume = spec.checkpoint().resume();
  if (resume.empty() || resume == "never") return std::string();
  std::string folder = resume;
  CheckpointManifest manifest;
  if (resume == "auto") {
    ASSIGN_OR_RETURN(const auto newest,
                     FindNewestCheckpoint(files, JoinPath(run_directory, "checkpoints")));
    if (!newest) return std::string();
    folder = newest->folder;
    manifest = newest->manifest;
  } else {
    ASSIGN_OR_RETURN(manifest, ReadManifest(files, folder));
  }
  proto::JobSpec before;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  if (!google::protobuf::util::JsonStringToMessage(manifest.job_json, &before, options).ok()) {
    return MakeError(ErrorCode::kCorrupt, "{}: the manifest holds no job", folder);
  }
  const std::vector<std::string> differences = ForbiddenDifferences(before, spec);
  if (!differences.empty()) {
    return MakeError(
        ErrorCode::kInvalidSpec,
        "checkpoint.resume: {} was written by another job: {}; change it back, or start "
        "a run directory of its own",
        folder, fmt::join(differences, "; "));
  }
  spec.mutable_batch()->set_gradient_groups(manifest.gradient_groups);
  return folder;
}

}  // namespace troupe
