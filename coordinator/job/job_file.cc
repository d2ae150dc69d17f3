#include "coordinator/job/job_file.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

#include <filesystem>

#include "coordinator/job/hf_model.h"
#include "coordinator/job/job_checks.h"
#include "coordinator/job/job_defaults.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr int64_t kFileBytesMax = int64_t{1} << 20;
constexpr int kExtendsMax = 8;

std::string Absolute(const std::string& folder, const std::string& path) {
  // By its words alone: asking the disk throws for what can be no path.
  std::string absolute = (fs::path(folder) / path).lexically_normal().string();
  if (absolute.size() > 1 && absolute.ends_with('/')) absolute.pop_back();
  return absolute;
}

// Parents first, so that a child's keys win.
void ReadWithParents(FileSystem& files, const std::string& path, int depth, LoadedJob& job,
                     std::vector<std::string>& errors) {
  if (depth > kExtendsMax) {
    errors.push_back(fmt::format("{}: extends goes through more than {} files", path, kExtendsMax));
    return;
  }
  auto text = files.ReadFile(path, kFileBytesMax);
  if (!text.ok()) {
    errors.push_back(text.error().message);
    return;
  }
  if (depth == 0) job.text = *text;
  proto::JobSpec own;
  Provenance provenance;
  std::map<std::string, std::string> extra = {{"extends", ""}};
  WalkYaml(*text, {path, depth == 0 ? "file" : path, &errors, &provenance}, own, &extra);
  const std::string folder = fs::path(path).parent_path().string();
  if (!extra["extends"].empty()) {
    ReadWithParents(files, Absolute(folder, extra["extends"]), depth + 1, job, errors);
  }
  // Paths are relative to the file that names them.
  if (own.data().has_train()) {
    own.mutable_data()->set_train(Absolute(folder, own.data().train()));
  }
  for (const auto field : {&proto::Model::config, &proto::Model::init_from}) {
    if ((own.model().*field)().empty()) continue;
    const std::string absolute = Absolute(folder, (own.model().*field)());
    field == &proto::Model::config ? own.mutable_model()->set_config(absolute)
                                   : own.mutable_model()->set_init_from(absolute);
  }
  const std::string resume = own.checkpoint().resume();
  if (own.checkpoint().has_resume() && resume != "never" && resume != "auto") {
    own.mutable_checkpoint()->set_resume(Absolute(folder, resume));
  }
  // A list replaces a list.
  if (own.optimizer().betas_size() > 0) job.spec.mutable_optimizer()->clear_betas();
  if (own.model().eos_token_id_size() > 0) job.spec.mutable_model()->clear_eos_token_id();
  job.spec.MergeFrom(own);
  for (auto& [key, origin] : provenance) job.provenance[key] = origin;
}

void ApplyOverrides(const std::vector<Override>& overrides, LoadedJob& job,
                    std::vector<std::string>& errors) {
  for (const Override& o : overrides) {
    const WalkContext context{fmt::format("--set {}={}", o.path, o.value), "flag", &errors,
                              &job.provenance};
    WalkOverride(o.path, o.value, context, job.spec);
    // Paths on the command line are relative to where it was typed.
    const std::string here = fs::current_path().string();
    if (o.path == "data.train") {
      job.spec.mutable_data()->set_train(Absolute(here, job.spec.data().train()));
    } else if (o.path == "model.config") {
      job.spec.mutable_model()->set_config(Absolute(here, job.spec.model().config()));
    } else if (o.path == "model.init_from") {
      job.spec.mutable_model()->set_init_from(Absolute(here, job.spec.model().init_from()));
    } else if (o.path == "checkpoint.resume" && o.value != "never" && o.value != "auto") {
      job.spec.mutable_checkpoint()->set_resume(Absolute(here, job.spec.checkpoint().resume()));
    }
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
                         from == provenance.end() ? "default" : from->second);
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
                       from == provenance.end() ? "default" : from->second);
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
  LoadedJob job;
  std::vector<std::string> errors;
  ReadWithParents(files, Absolute(fs::current_path().string(), path), 0, job, errors);
  ApplyOverrides(overrides, job, errors);
  if (const Status merged = MergeHfConfig(files, *job.spec.mutable_model(), job.provenance);
      !merged.ok()) {
    errors.push_back(fmt::format("{}: {}", path, merged.error().message));
  }
  if (!errors.empty()) return Joined(errors, ErrorCode::kInvalidSpec);
  ApplyDefaults(job.spec, job.provenance);
  ErrorCode code = ErrorCode::kInfeasible;
  for (const Error& error : CheckJob(files, job.spec)) {
    if (error.code != ErrorCode::kInfeasible) code = ErrorCode::kInvalidSpec;
    errors.push_back(fmt::format("{}: {}", path, error.message));
  }
  if (!errors.empty()) return Joined(errors, code);
  job.effective_text = EffectiveYaml(job.spec, job.provenance);
  return job;
}

std::string EffectiveYaml(const proto::JobSpec& spec, const Provenance& provenance) {
  std::string out;
  EmitYaml(spec, "", 0, provenance, out);
  return out;
}

}  // namespace troupe
