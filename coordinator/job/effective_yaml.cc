// The effective job as YAML.
#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

#include "coordinator/job/job_file.h"
#include "coordinator/job/yaml_scalar.h"

namespace troupe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string ScalarText(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool one = index < 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return fmt::format(
          "{}", one ? r.GetInt32(message, &field) : r.GetRepeatedInt32(message, &field, index));
    case FieldDescriptor::CPPTYPE_INT64:
      return fmt::format(
          "{}", one ? r.GetInt64(message, &field) : r.GetRepeatedInt64(message, &field, index));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return fmt::format(
          "{}", one ? r.GetDouble(message, &field) : r.GetRepeatedDouble(message, &field, index));
    case FieldDescriptor::CPPTYPE_BOOL:
      return r.GetBool(message, &field) ? "true" : "false";
    default:
      return QuotedYaml(r.GetString(message, &field));
  }
}

// Written down, they would be keys without effect that somebody gave.
void LeaveOutIdleDefaults(const Provenance& provenance, proto::JobSpec& spec) {
  proto::LrScheduler& scheduler = *spec.mutable_lr_scheduler();
  const auto given = [&](std::string_view key) {
    const auto from = provenance.find(key);
    return from != provenance.end() && !from->second.place.where.empty();
  };
  if (scheduler.name() != "constant") return;
  if (!given("lr_scheduler.decay_steps")) scheduler.clear_decay_steps();
  if (!given("lr_scheduler.min_lr")) scheduler.clear_min_lr();
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

}  // namespace

std::string EffectiveYaml(const proto::JobSpec& spec, const Provenance& provenance) {
  std::string out;
  proto::JobSpec shown = spec;
  LeaveOutIdleDefaults(provenance, shown);
  EmitYaml(shown, "", 0, provenance, out);
  return out;
}

}  // namespace troupe
