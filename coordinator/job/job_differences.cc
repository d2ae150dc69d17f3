#include "coordinator/job/job_differences.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "actors/plan/learning_rate.h"

namespace troupe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// A key, or a group of keys, that a resumed run may change. Data are compared by content.
constexpr std::array<std::string_view, 22> kMayDiffer = {"name",
                                                         "parallelism",
                                                         "data_parallel",
                                                         "resources.workers",
                                                         "resources.peer_silence_seconds",
                                                         "resources.hang_seconds",
                                                         "log",
                                                         "eval",
                                                         "checkpoint",
                                                         "train.steps",
                                                         "train.stop_after",
                                                         "train.grad_dtype",
                                                         "train.recompute",
                                                         "data.train",
                                                         "data.allow_change",
                                                         "model.config",
                                                         "model.init_from",
                                                         "model.ignore_extra_tensors",
                                                         "model.bos_token_id",
                                                         "model.eos_token_id",
                                                         "model.pad_token_id",
                                                         "spec_version"};

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

// No difference is what has no effect: under a constant rate nothing decays, and decay_steps that
// nobody gave follows train.steps, which may change.
void LeaveOutDecay(proto::JobSpec& was, proto::JobSpec& is) {
  const auto both = [&](const auto& holds) { return holds(was) && holds(is); };
  const bool constant =
      both([](const proto::JobSpec& spec) { return spec.lr_scheduler().name() == "constant"; });
  const bool follows = both([](const proto::JobSpec& spec) {
    return spec.lr_scheduler().decay_steps() == DefaultDecaySteps(spec);
  });
  for (proto::JobSpec* spec : {&was, &is}) {
    if (constant || follows) spec->mutable_lr_scheduler()->clear_decay_steps();
    if (constant) spec->mutable_lr_scheduler()->clear_min_lr();
  }
}

}  // namespace

std::vector<std::string> ForbiddenDifferences(const proto::JobSpec& saved,
                                              const proto::JobSpec& now) {
  proto::JobSpec was = saved;
  proto::JobSpec is = now;
  LeaveOutDecay(was, is);
  std::vector<std::string> differences;
  Compare(was, is, "", differences);
  return differences;
}

}  // namespace troupe
