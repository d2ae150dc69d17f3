// Fills a protobuf message from YAML by reflection, strictly: an unknown key, a key given twice or
// a value of another type is an error with file:line:col, the valid ones and a suggestion. All
// errors are found in one pass. Pure; any thread.
#pragma once

#include <google/protobuf/message.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

// Where a value came from, by dotted path: "file", "flag", "model.config", "default".
using Provenance = std::map<std::string, std::string>;

struct WalkContext {
  std::string place{};   // file name, or "--set a.b" for a flag
  std::string origin{};  // what provenance notes: "file" or "flag"
  std::vector<std::string>* errors = nullptr;
  Provenance* provenance = nullptr;
};

// Parses `text` (a whole YAML file) into `message`. Keys that only the caller knows are taken out
// first: `extra` maps such a key to its scalar, where it is there.
void WalkYaml(std::string_view text, const WalkContext& context, google::protobuf::Message& message,
              std::map<std::string, std::string>* extra = nullptr);

// One override "a.b.c" = `value`, a YAML scalar or flow list.
void WalkOverride(std::string_view path, std::string_view value, const WalkContext& context,
                  google::protobuf::Message& message);

// `candidates` nearest to `word`, or empty where none is near.
std::string Nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace troupe
