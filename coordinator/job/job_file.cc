#include "coordinator/job/job_file.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

#include <filesystem>

#include "actors/schedule/csv.h"
#include "coordinator/job/hf_model.h"
#include "coordinator/job/job_checks.h"
#include "coordinator/job/job_defaults.h"
#include "coordinator/job/yaml_walker.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr int64_t kFileBytesMax = int64_t{1} << 20;
constexpr int kExtendsMax = 8;
constexpr size_t kSentenceBytesMax = 1000;

std::string Absolute(const std::string& folder, const std::string& path) {
  // By its words alone: asking the disk throws for what can be no path.
  std::string absolute = (fs::path(folder) / path).lexically_normal().string();
  if (absolute.size() > 1 && absolute.ends_with('/')) absolute.pop_back();
  return absolute;
}

// A run's `latest` moves on when this job starts: what it names is followed now.
std::string FollowLatest(FileSystem& files, std::string path) {
  constexpr std::string_view kLatest = "/latest";
  for (size_t at = path.find(kLatest); at != std::string::npos; at = path.find(kLatest, at + 1)) {
    const size_t end = at + kLatest.size();
    if (end < path.size() && path[end] != '/') continue;
    const auto target = files.ReadLink(path.substr(0, end));
    if (target.ok()) path = Absolute(path.substr(0, at), *target + path.substr(end));
  }
  return path;
}

// Makes the paths that `spec` gives absolute, from `folder`.
void ResolvePaths(FileSystem& files, const std::string& folder, proto::JobSpec& spec) {
  const auto resolve = [&](std::string* path) {
    if (!path->empty()) *path = FollowLatest(files, Absolute(folder, *path));
  };
  if (spec.data().has_train()) resolve(spec.mutable_data()->mutable_train());
  if (spec.model().has_config()) resolve(spec.mutable_model()->mutable_config());
  if (spec.model().has_init_from()) resolve(spec.mutable_model()->mutable_init_from());
  if (spec.parallelism().has_schedule_csv()) {
    resolve(spec.mutable_parallelism()->mutable_schedule_csv());
  }
  const std::string& resume = spec.checkpoint().resume();
  if (!resume.empty() && resume != "never" && resume != "auto") {
    resolve(spec.mutable_checkpoint()->mutable_resume());
  }
}

// The job carries the schedule's text: no other host needs the file.
Status ReadSchedule(FileSystem& files, LoadedJob& job) {
  proto::Parallelism& parallelism = *job.spec.mutable_parallelism();
  if (parallelism.has_schedule_csv()) {
    auto text = files.ReadFile(parallelism.schedule_csv(), kCsvBytesMax);
    if (!text.ok()) return Context("parallelism.schedule_csv", std::move(text).error());
    parallelism.set_schedule_actions(*std::move(text));
    job.provenance["parallelism.schedule_actions"] = {.source = parallelism.schedule_csv()};
  }
  if (parallelism.has_schedule_actions()) parallelism.set_schedule("csv");
  return {};
}

// A list replaces a list.
void Merge(const proto::JobSpec& own, proto::JobSpec& spec) {
  if (own.optimizer().betas_size() > 0) spec.mutable_optimizer()->clear_betas();
  if (own.model().eos_token_id_size() > 0) spec.mutable_model()->clear_eos_token_id();
  if (own.parallelism().stage_layers_size() > 0) spec.mutable_parallelism()->clear_stage_layers();
  spec.MergeFrom(own);
}

// Parents first, so that a child's keys win. `named_at`: where another file names this one, and
// how.
void ReadWithParents(FileSystem& files, const std::string& path, int depth,
                     const std::string& named_at, LoadedJob& job,
                     std::vector<std::string>& errors) {
  if (depth > kExtendsMax) {
    errors.push_back(
        fmt::format("{}: goes through more than {} files: end the chain", named_at, kExtendsMax));
    return;
  }
  auto text = files.ReadFile(path, kFileBytesMax);
  if (!text.ok()) {
    const std::string sentence = (depth == 0 ? "" : named_at + ": ") + text.error().message;
    errors.push_back(Shown(sentence, kSentenceBytesMax));
    return;
  }
  if (depth == 0) job.text = *text;
  const std::string folder = FolderOf(path);
  const std::string here = Absolute(job.working_folder, folder);
  proto::JobSpec own;
  Provenance provenance;
  ExtraKeys extra = {{"extends", ""}};
  const std::string source = depth == 0 ? "file" : Absolute(here, fs::path(path).filename());
  WalkYaml(*text, {path, source, &errors, &provenance}, own, &extra);
  if (const std::string& parent = extra["extends"]; !parent.empty()) {
    const std::string at =
        fmt::format("{}: extends = {}", provenance["extends"].place, Shown(parent));
    ReadWithParents(files, (fs::path(folder) / parent).lexically_normal().string(), depth + 1, at,
                    job, errors);
  }
  ResolvePaths(files, here, own);
  Merge(own, job.spec);
  for (auto& [key, origin] : provenance) job.provenance[key] = std::move(origin);
}

void ApplyOverrides(FileSystem& files, const std::vector<Override>& overrides, LoadedJob& job,
                    std::vector<std::string>& errors) {
  for (const Override& o : overrides) {
    const std::string place =
        o.flag.empty() ? fmt::format("--set {}={}", Shown(o.path), Shown(o.value)) : o.flag;
    proto::JobSpec own;
    WalkOverride(o.path, o.value, {place, "flag", &errors, &job.provenance}, own);
    // Paths on the command line are relative to where it was typed.
    ResolvePaths(files, job.working_folder, own);
    Merge(own, job.spec);
  }
}

std::string ScalarText(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool one = index < 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return fmt::format(
          "{}", one ? r.GetInt32(message, &field) : r.GetRepeatedInt32(message, &field, index));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return fmt::format(
          "{}", one ? r.GetDouble(message, &field) : r.GetRepeatedDouble(message, &field, index));
    case FieldDescriptor::CPPTYPE_BOOL:
      return r.GetBool(message, &field) ? "true" : "false";
    default: {
      std::string quoted = "\"";
      for (const char c : r.GetString(message, &field)) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7f) {
          quoted += fmt::format("\\x{:02x}", byte);
          continue;
        }
        if (c == '"' || c == '\\') quoted += '\\';
        quoted += c;
      }
      return quoted + "\"";
    }
  }
}

void EmitYaml(const Message& message, const std::string& path, int indent,
              const Provenance& provenance, std::string& out) {
  const Reflection& r = *message.GetReflection();
  const auto& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string full = path.empty() ? field.name() : path + "." + field.name();
    const std::string head = std::string(static_cast<size_t>(indent), ' ') + field.name() + ":";
    if (field.is_repeated()) {
      const int size = r.FieldSize(message, &field);
      if (size == 0) continue;
      std::string list;
      for (int k = 0; k < size; ++k) {
        list += (k == 0 ? "" : ", ") + ScalarText(message, field, k);
      }
      const auto from = provenance.find(full);
      out += fmt::format("{} [{}]  # from: {}\n", head, list,
                         from == provenance.end() ? "default" : from->second.source);
      continue;
    }
    if (!r.HasField(message, &field)) continue;
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      out += head + "\n";
      EmitYaml(r.GetMessage(message, &field), full, indent + 2, provenance, out);
      continue;
    }
    const auto from = provenance.find(full);
    out += fmt::format("{} {}  # from: {}\n", head, ScalarText(message, field, -1),
                       from == provenance.end() ? "default" : from->second.source);
  }
}

Error Joined(const std::vector<std::string>& sentences, ErrorCode code) {
  return MakeError(code, "{}", fmt::join(sentences, "\n"));
}

}  // namespace

Result<Override> ParseOverride(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return MakeError(ErrorCode::kInvalidSpec, "--set {}: write it as key.key=value",
                     std::string(text));
  }
  return Override{std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

Result<LoadedJob> LoadJob(FileSystem& files, const std::string& path,
                          const std::vector<Override>& overrides) {
  auto working_folder = CurrentFolder();
  if (!working_folder.ok() && !path.starts_with('/')) return std::move(working_folder).error();
  LoadedJob job{.path = path, .working_folder = working_folder.ok() ? *working_folder : ""};
  std::vector<std::string> errors;
  ReadWithParents(files, path, 0, "", job, errors);
  ApplyOverrides(files, overrides, job, errors);
  if (Status merged = MergeHfConfig(files, *job.spec.mutable_model(), job.provenance);
      !merged.ok()) {
    errors.push_back(AtPlace(job, std::move(merged).error()).message);
  }
  if (Status read = ReadSchedule(files, job); !read.ok()) {
    errors.push_back(AtPlace(job, std::move(read).error()).message);
  }
  if (!errors.empty()) return Joined(errors, ErrorCode::kInvalidSpec);
  ApplyDefaults(job.spec, job.provenance);
  ErrorCode code = ErrorCode::kInfeasible;
  for (Error& error : CheckJob(files, job.spec)) {
    if (error.code != ErrorCode::kInfeasible) code = ErrorCode::kInvalidSpec;
    errors.push_back(AtPlace(job, std::move(error)).message);
  }
  if (!errors.empty()) return Joined(errors, code);
  job.effective_text = EffectiveYaml(job.spec, job.provenance);
  return job;
}

Error AtPlace(const LoadedJob& job, Error error) {
  const std::string_view place = PlaceOf(job.provenance, error.message);
  error.message = Shown(error.message, kSentenceBytesMax);
  return Context(place.empty() ? job.path : place, std::move(error));
}

std::string EffectiveYaml(const proto::JobSpec& spec, const Provenance& provenance) {
  std::string out;
  EmitYaml(spec, "", 0, provenance, out);
  return out;
}

}  // namespace troupe
