#include "coordinator/job/yaml_walker.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

#include "actors/plan/trace_window.h"

namespace troupe {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kFileBytesMax = size_t{1} << 20;
constexpr int kDepthMax = 16;
constexpr size_t kListLengthMax = 1024;
constexpr size_t kErrorsMax = 100;

// What people type elsewhere for the same thing.
const std::map<std::string, std::string, std::less<>> kAliases = {
    {"pipeline_parallel_size", "pp"},   {"tensor_parallel_size", "tp"},
    {"context_parallel_size", "cp"},    {"data_parallel_size", "dp"},
    {"expert_parallel_size", "ep"},     {"rope_parameters", "rope_scaling"},
    {"gradient_clipping", "grad_clip"}, {"max_grad_norm", "grad_clip"},
};

int Distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::vector<std::string> KeysOf(const Descriptor& type) {
  std::vector<std::string> keys;
  for (int i = 0; i < type.field_count(); ++i) keys.emplace_back(type.field(i)->name());
  return keys;
}

// The line, from 1, of the first byte that is not UTF-8 as RFC 3629 has it; 0 where all is.
int LineOfBadUtf8(std::string_view text) {
  int line = 1;
  for (size_t i = 0; i < text.size();) {
    const auto at = [&](size_t k) { return static_cast<unsigned char>(text[i + k]); };
    const unsigned char lead = at(0);
    line += lead == '\n' ? 1 : 0;
    const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    const bool lead_good = lead < 0x80 || (lead >= 0xc2 && lead <= 0xf4);
    if (!lead_good || i + length > text.size()) return line;
    for (size_t k = 1; k < length; ++k) {
      if ((at(k) & 0xc0) != 0x80) return line;
    }
    const bool overlong = (lead == 0xe0 && at(1) < 0xa0) || (lead == 0xf0 && at(1) < 0x90);
    const bool no_character = (lead == 0xed && at(1) >= 0xa0) || (lead == 0xf4 && at(1) >= 0x90);
    if (overlong || no_character) return line;
    i += length;
  }
  return 0;
}

template <typename T>
bool ParseAll(std::string_view text, T& value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end;
}

bool ParseFinite(std::string_view text, double& value) {
  return ParseAll(text, value) && std::isfinite(value);
}

// What is wrong with `text` as a number, and the plain digits for what was probably meant: 1e3 and
// 2_000 are whole numbers elsewhere.
std::string NumberNeeded(std::string text, bool whole) {
  double value = 0;
  if (ParseAll(text, value) && !std::isfinite(value)) {
    return whole ? "a whole number" : "a finite number";
  }
  std::erase_if(text, [](char c) { return c == '_'; });
  if (text.starts_with('+')) text.erase(0, 1);
  if (!ParseFinite(text, value)) return whole ? "a whole number" : "a number";
  if (!whole) return fmt::format("a number in plain digits: write {}", text);
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  if (value != std::trunc(value)) return "a whole number";
  if (std::abs(value) > kMost) return fmt::format("a whole number from -{0} to {0}", kMost);
  return fmt::format("a whole number in plain digits: write {}", static_cast<int32_t>(value));
}

std::string_view TypeInWords(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return "a whole number";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_STRING:
      return "text";
    default:
      return "a mapping";
  }
}

class Walker {
 public:
  explicit Walker(const WalkContext& context, ExtraKeys* extra = nullptr)
      : context_(context), extra_(extra) {}

  void Map(const YAML::Node& node, const std::string& path, Message& message, int depth) {
    const Descriptor& type = *message.GetDescriptor();
    if (!node.IsMap()) {
      return Fail(node, "{} is not a mapping of keys: {}", path.empty() ? "the job" : path,
                  fmt::join(KeysOf(type), ", "));
    }
    if (depth > kDepthMax) return Fail(node, "{} is nested too deeply", path);
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) {
        Fail(entry.first, "a key of {} is not a word", path);
        continue;
      }
      std::string key = entry.first.Scalar();
      if (const auto alias = kAliases.find(key);
          alias != kAliases.end() && type.FindFieldByName(key) == nullptr) {
        key = alias->second;
      }
      const std::string full = path.empty() ? Shown(key) : path + "." + Shown(key);
      const FieldDescriptor* field = type.FindFieldByName(key);
      const bool extra = depth == 0 && extra_ != nullptr && extra_->contains(key);
      if (field == nullptr && !extra) {
        UnknownKey(entry.first, full, key, type);
      } else if (!seen.insert(key).second) {
        Fail(entry.first, "{} is given twice", full);
      } else if (extra) {
        Extra(entry.second, key);
      } else {
        Field(entry.second, full, *field, message, depth);
      }
    }
  }

  void Field(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
             Message& message, int depth) {
    const Reflection& reflection = *message.GetReflection();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (node.IsNull() || Switch(node, path, field, message)) return;
      return Map(node, path, *reflection.MutableMessage(&message, &field), depth + 1);
    }
    if (!field.is_repeated()) {
      if (Scalar(node, path, field, message)) Note(node, path);
      return;
    }
    // A single value stands for a list of one, as in config.json's eos_token_id.
    reflection.ClearField(&message, &field);
    const bool list = node.IsSequence();
    if (list && node.size() > kListLengthMax) return Fail(node, "{} has too many values", path);
    if (list && node.size() == 0) return Fail(node, "{} is empty: leave it out", path);
    bool good = true;
    for (size_t i = 0; i < (list ? node.size() : 1); ++i) {
      good = Scalar(list ? node[i] : node, path, field, message) && good;
    }
    if (good) Note(node, path);
  }

  // `log.trace` may be a word too: false for no steps, true for the default ones.
  bool Switch(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
              Message& message) {
    if (field.message_type() != proto::TraceWindow::descriptor() || !node.IsScalar()) return false;
    bool on = false;
    if (!YAML::convert<bool>::decode(node, on)) return false;
    auto& window = static_cast<proto::TraceWindow&>(
        *message.GetReflection()->MutableMessage(&message, &field));
    window.set_first(TraceWindow::kFirst);
    window.set_steps(on ? TraceWindow::kSteps : 0);
    window.set_every(TraceWindow::kEvery);
    for (const char* key : {"first", "steps", "every"}) Note(node, path + "." + key);
    return true;
  }

  void Extra(const YAML::Node& node, const std::string& key) {
    if (!node.IsScalar()) return Fail(node, "{} needs text", key);
    (*extra_)[key] = node.Scalar();
    Note(node, key);
  }

  void UnknownKey(const YAML::Node& at, const std::string& path, const std::string& key,
                  const Descriptor& type) {
    std::vector<std::string> keys = KeysOf(type);
    if (extra_ != nullptr && path.find('.') == std::string::npos) {
      for (const auto& [own, text] : *extra_) keys.push_back(own);
    }
    const std::string nearest = key.size() > kShownBytesMax ? "" : Nearest(key, keys);
    if (!nearest.empty()) {
      return Fail(at, "there is no key {}: did you mean {}?", path, nearest);
    }
    Fail(at, "there is no key {}: use one of {}", path, fmt::join(keys, ", "));
  }

  template <typename... Args>
  void Fail(const YAML::Node& node, fmt::format_string<Args...> format, Args&&... args) {
    if (context_.errors->size() >= kErrorsMax) return;
    context_.errors->push_back(At(node) + ": " + fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  std::string At(const YAML::Node& node) const {
    const YAML::Mark mark = node.Mark();
    if (context_.source == "flag" || mark.is_null()) return context_.place;
    return fmt::format("{}:{}:{}", context_.place, mark.line + 1, mark.column + 1);
  }

  bool Scalar(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
              Message& message) {
    if (!node.IsScalar()) {
      Fail(node, "{} needs {}", path, TypeInWords(field));
      return false;
    }
    const std::string& text = node.Scalar();
    if (Set(text, field, message)) return true;
    const bool whole = field.cpp_type() == FieldDescriptor::CPPTYPE_INT32;
    const bool number = whole || field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE;
    Fail(node, "{} = {}: needs {}", path, Shown(text),
         number ? NumberNeeded(text, whole) : std::string(TypeInWords(field)));
    return false;
  }

  static bool Set(const std::string& text, const FieldDescriptor& field, Message& message) {
    const Reflection& r = *message.GetReflection();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32: {
        int32_t value = 0;
        if (!ParseAll(text, value)) return false;
        field.is_repeated() ? r.AddInt32(&message, &field, value)
                            : r.SetInt32(&message, &field, value);
        return true;
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        double value = 0;
        if (!ParseFinite(text, value)) return false;
        field.is_repeated() ? r.AddDouble(&message, &field, value)
                            : r.SetDouble(&message, &field, value);
        return true;
      }
      case FieldDescriptor::CPPTYPE_BOOL:
        if (text != "true" && text != "false") return false;
        r.SetBool(&message, &field, text == "true");
        return true;
      default:
        r.SetString(&message, &field, text);
        return true;
    }
  }

  void Note(const YAML::Node& node, const std::string& path) {
    if (context_.provenance != nullptr) {
      (*context_.provenance)[path] = {context_.source, At(node)};
    }
  }

  const WalkContext& context_;
  ExtraKeys* const extra_;
};

}  // namespace

std::string Shown(std::string_view text, size_t bytes_max) {
  std::string shown;
  size_t end = std::min(text.size(), bytes_max);
  // Whole characters only.
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) {
    --end;
  }
  for (const char c : text.substr(0, end)) {
    const auto byte = static_cast<unsigned char>(c);
    shown += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return end < text.size() ? shown + "..." : shown;
}

std::string Nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string nearest;
  int best = static_cast<int>(word.size()) / 3 + 1;
  for (const std::string& candidate : candidates) {
    const int distance = Distance(word, candidate);
    if (distance <= best && (nearest.empty() || distance < best)) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

void WalkYaml(std::string_view text, const WalkContext& context, Message& message,
              ExtraKeys* extra) {
  if (text.size() > kFileBytesMax) {
    context.errors->push_back(fmt::format("{}: a job file of {} bytes: at most {} are read",
                                          context.place, text.size(), kFileBytesMax));
    return;
  }
  if (const int line = LineOfBadUtf8(text); line > 0) {
    context.errors->push_back(
        fmt::format("{}:{}: not UTF-8: save the file as UTF-8", context.place, line));
    return;
  }
  try {
    Walker(context, extra).Map(YAML::Load(std::string(text)), "", message, 0);
  } catch (const YAML::Exception& error) {
    context.errors->push_back(fmt::format("{}:{}:{}: not YAML: {}", context.place,
                                          error.mark.line + 1, error.mark.column + 1, error.msg));
  }
}

void WalkOverride(std::string_view path, std::string_view value, const WalkContext& context,
                  Message& message) {
  if (LineOfBadUtf8(path) > 0 || LineOfBadUtf8(value) > 0) {
    context.errors->push_back(fmt::format("{}: not UTF-8", context.place));
    return;
  }
  Walker walker(context);
  try {
    const YAML::Node node = YAML::Load(std::string(value));
    Message* at = &message;
    std::string done;
    for (std::string_view rest = path;;) {
      const size_t dot = rest.find('.');
      std::string key(rest.substr(0, dot));
      if (const auto alias = kAliases.find(key); alias != kAliases.end()) key = alias->second;
      done += (done.empty() ? "" : ".") + key;
      const FieldDescriptor* field = at->GetDescriptor()->FindFieldByName(key);
      if (field == nullptr) return walker.UnknownKey(node, done, key, *at->GetDescriptor());
      if (dot == std::string_view::npos) return walker.Field(node, done, *field, *at, 0);
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
        return walker.Fail(node, "{} has no keys of its own", done);
      }
      at = at->GetReflection()->MutableMessage(at, field);
      rest.remove_prefix(dot + 1);
    }
  } catch (const YAML::Exception& error) {
    context.errors->push_back(fmt::format("{}: not YAML: {}", context.place, error.msg));
  }
}

}  // namespace troupe
