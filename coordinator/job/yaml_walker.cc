#include "coordinator/job/yaml_walker.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "actors/plan/trace_window.h"
#include "coordinator/job/yaml_documents.h"
#include "coordinator/job/yaml_scalar.h"
#include "runtime/base/utf8.h"

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
    {"pipeline_parallel_size", "pp"},    {"tensor_parallel_size", "tp"},
    {"context_parallel_size", "cp"},     {"data_parallel_size", "dp"},
    {"expert_parallel_size", "ep"},      {"rope_parameters", "rope_scaling"},
    {"gradient_clipping", "grad_clip"},  {"max_grad_norm", "grad_clip"},
    {"ignore_index", "ignore_label"},    {"cp_comm_type", "cp_method"},
    {"eod_token", "document_separator"}, {"recompute_granularity", "recompute"},
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

// The line, from 1, of the first byte that is not UTF-8; 0 where all is.
int LineOfBadUtf8(std::string_view text) {
  int line = 1;
  for (size_t at = 0; at < text.size();) {
    line += text[at] == '\n' ? 1 : 0;
    const size_t length = Utf8CharacterBytes(text, at);
    if (length == 0) return line;
    at += length;
  }
  return 0;
}

Place PlaceIn(const WalkContext& context, const YAML::Mark& mark) {
  if (context.source == "flag" || mark.is_null()) return {.where = context.place};
  return {context.place, mark.line + 1, mark.column + 1};
}

class Walker {
 public:
  explicit Walker(const WalkContext& context, ExtraKeys* extra = nullptr)
      : context_(context), extra_(extra) {}

  void Map(const YAML::Node& node, const std::string& path, Message& message, int depth) {
    const Descriptor& type = *message.GetDescriptor();
    if (!node.IsMap()) {
      return FailKey(node, path, "{} is not a mapping of keys: {}", path.empty() ? "the job" : path,
                     fmt::join(KeysOf(type), ", "));
    }
    if (depth > kDepthMax) return FailKey(node, path, "{} is nested too deeply", path);
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) {
        FailKey(entry.first, path, "a key of {} is not a word", path);
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
        FailKey(entry.first, full, "{} is given twice", full);
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
    if (list && node.size() > kListLengthMax) {
      return FailKey(node, path, "{} has too many values", path);
    }
    if (list && node.size() == 0) return FailKey(node, path, "{} is empty: leave it out", path);
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
    if (!node.IsScalar()) return FailKey(node, key, "{} needs text", key);
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
    const std::string group = path.substr(0, path.size() - std::min(path.size(), key.size()));
    if (context_.unread != nullptr && !(group + nearest).empty()) {
      context_.unread->insert(group + nearest);
    }
    if (!nearest.empty()) {
      return Fail(at, path, "there is no key {}: did you mean {}?", path, nearest);
    }
    Fail(at, path, "there is no key {}: use one of {}", path, fmt::join(keys, ", "));
  }

  // What is wrong with the key's value: it counts as not read.
  template <typename... Args>
  void FailKey(const YAML::Node& node, const std::string& key, fmt::format_string<Args...> format,
               Args&&... args) {
    if (context_.unread != nullptr) context_.unread->insert(key);
    Fail(node, key, format, std::forward<Args>(args)...);
  }

  template <typename... Args>
  void Fail(const YAML::Node& node, const std::string& key, fmt::format_string<Args...> format,
            Args&&... args) {
    if (context_.errors->size() >= kErrorsMax) return;
    context_.errors->push_back({.place = PlaceIn(context_, node.Mark()),
                                .key = key,
                                .message = fmt::format(format, std::forward<Args>(args)...)});
  }

 private:
  bool Scalar(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
              Message& message) {
    if (!node.IsScalar()) {
      FailKey(node, path, "{} needs {}", path, TypeInWords(field));
      return false;
    }
    const std::string& text = node.Scalar();
    if (SetScalar(text, field, message)) return true;
    FailKey(node, path, "{} = {}: needs {}", path, Shown(text), NeededFor(text, field));
    return false;
  }

  void Note(const YAML::Node& node, const std::string& path) {
    if (context_.provenance != nullptr) {
      (*context_.provenance)[path] = {context_.source, PlaceIn(context_, node.Mark())};
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
  const auto refuse = [&](Place place, std::string sentence) {
    if (context.unread != nullptr) context.unread->insert("");
    context.errors->push_back({.place = std::move(place), .message = std::move(sentence)});
  };
  if (text.size() > kFileBytesMax) {
    return refuse(
        {.where = context.place},
        fmt::format("a job file of {} bytes: at most {} are read", text.size(), kFileBytesMax));
  }
  if (const int line = LineOfBadUtf8(text); line > 0) {
    return refuse({fmt::format("{}:{}", context.place, line)}, "not UTF-8: save the file as UTF-8");
  }
  try {
    const YAML::Node node = YAML::Load(std::string(text));
    Walker(context, extra).Map(node, "", message, 0);
    const auto second = node.IsMap() ? SecondDocument(text) : std::nullopt;
    if (!second) return;
    context.errors->push_back({.place = PlaceIn(context, *second),
                               .message = "a second YAML document begins here, after ---: a job "
                                          "file is one; move it to a file of its own"});
  } catch (const YAML::Exception& error) {
    refuse({context.place, error.mark.line + 1, error.mark.column + 1},
           fmt::format("not YAML: {}", error.msg));
  }
}

namespace {

// The field that a dotted path names, and the message that has it; null, and an error, where there
// is none. `make`: messages on the way that are not there are made, else they are no error.
struct FoundField {
  Message* message = nullptr;
  const FieldDescriptor* field = nullptr;
  std::string path{};  // in the keys' own names
};
FoundField Find(std::string_view path, const YAML::Node& node, Walker& walker, Message& message,
                bool make) {
  FoundField named{.message = &message};
  const Descriptor* type = message.GetDescriptor();
  for (std::string_view rest = path;;) {
    const size_t dot = rest.find('.');
    std::string key(rest.substr(0, dot));
    if (const auto alias = kAliases.find(key); alias != kAliases.end()) key = alias->second;
    named.path += (named.path.empty() ? "" : ".") + key;
    named.field = type->FindFieldByName(key);
    if (named.field == nullptr) {
      walker.UnknownKey(node, named.path, key, *type);
      return {};
    }
    if (dot == std::string_view::npos) return named;
    type = named.field->message_type();
    if (type == nullptr) {
      walker.FailKey(node, named.path, "{} has no keys of its own", named.path);
      return {};
    }
    Message* const at = named.message;
    const bool there = at != nullptr && at->GetReflection()->HasField(*at, named.field);
    named.message = there || make ? at->GetReflection()->MutableMessage(at, named.field) : nullptr;
    rest.remove_prefix(dot + 1);
  }
}

}  // namespace

void WalkOverride(std::string_view path, std::string_view value, const WalkContext& context,
                  Message& message) {
  const auto refuse = [&](std::string sentence) {
    context.errors->push_back({.place = {.where = context.place}, .message = std::move(sentence)});
  };
  if (LineOfBadUtf8(path) > 0 || LineOfBadUtf8(value) > 0) return refuse("not UTF-8");
  Walker walker(context);
  try {
    const YAML::Node node = YAML::Load(std::string(value));
    if (SecondDocument(value)) return refuse("several YAML documents: give one value");
    const FoundField named = Find(path, node, walker, message, true);
    if (named.field == nullptr) return;
    walker.Field(node, named.path, *named.field, *named.message, 0);
  } catch (const YAML::Exception& error) {
    refuse(fmt::format("not YAML: {}", error.msg));
  }
}

void UnsetKey(std::string_view path, const WalkContext& context, Message& message) {
  if (LineOfBadUtf8(path) > 0) {
    context.errors->push_back({.place = {.where = context.place}, .message = "not UTF-8"});
    return;
  }
  Walker walker(context);
  const FoundField named = Find(path, YAML::Node(), walker, message, false);
  if (named.field == nullptr) return;
  if (named.message != nullptr) {
    named.message->GetReflection()->ClearField(named.message, named.field);
  }
  std::erase_if(*context.provenance, [&](const auto& entry) {
    return entry.first == named.path || entry.first.starts_with(named.path + ".");
  });
}

}  // namespace troupe
