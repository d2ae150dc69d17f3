#include "coordinator/job/job_bounds.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "actors/schedule/action.h"
#include "actors/schedule/csv.h"

namespace troupe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

class Bounds {
 public:
  void Walk(const Message& message, const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    std::vector<const FieldDescriptor*> given;
    reflection.ListFields(message, &given);
    for (const FieldDescriptor* field : given) {
      const std::string name = path.empty() ? field->name() : path + "." + field->name();
      if (field->is_repeated()) {
        List(message, *field, name);
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        Walk(reflection.GetMessage(message, field), name);
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
        Number(reflection.GetDouble(message, field), name);
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
        Text(reflection.GetString(message, field), name);
      }
    }
  }

  std::vector<Error> errors{};

 private:
  template <typename... Args>
  void Refuse(fmt::format_string<Args...> format, Args&&... args) {
    errors.push_back(MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...));
  }

  void List(const Message& message, const FieldDescriptor& field, const std::string& name) {
    const Reflection& reflection = *message.GetReflection();
    const int size = reflection.FieldSize(message, &field);
    const int most = name == "parallelism.stage_layers" ? kStagesMax : kListLengthMax;
    if (size > most) return Refuse("{} has {} values: use at most {}", name, size, most);
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_DOUBLE) return;
    for (int i = 0; i < size; ++i) {
      const double value = reflection.GetRepeatedDouble(message, &field, i);
      if (!std::isfinite(value)) return Number(value, name);
    }
  }

  void Number(double value, const std::string& name) {
    if (!std::isfinite(value)) Refuse("{} = {}: use a finite number", name, value);
  }

  void Text(const std::string& text, const std::string& name) {
    const bool prompt = name == "eval.sample.prompt";
    const bool actions = name == "parallelism.schedule_actions";
    const size_t most = prompt    ? kPromptBytesMax
                        : actions ? static_cast<size_t>(kCsvBytesMax)
                                  : kTextBytesMax;
    if (text.size() > most) {
      return Refuse("{} has {} bytes: use at most {}", name, text.size(), most);
    }
    if (prompt || actions) return;
    const auto control =
        std::ranges::find_if(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
    if (control == text.end()) return;
    Refuse("{} has the control character {:#04x} at byte {}: take it out", name,
           static_cast<unsigned char>(*control), control - text.begin());
  }
};

}  // namespace

std::vector<Error> CheckBounds(const proto::JobSpec& spec) {
  Bounds bounds;
  bounds.Walk(spec, "");
  return std::move(bounds.errors);
}

}  // namespace troupe
