// Fills a protobuf message from YAML by reflection, strictly: an unknown key, a key given twice or
// a value of another type is an error with its place, the valid ones and a suggestion. All errors
// are found in one pass. Pure; any thread.
#pragma once

#include <google/protobuf/message.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/job/provenance.h"

namespace troupe {

struct WalkContext {
  std::string place{};   // file name, or "--set a.b=v" for a flag
  std::string source{};  // what provenance notes: "file" or "flag"
  std::vector<Finding>* errors = nullptr;
  Provenance* provenance = nullptr;
  // Keys that somebody gave and that could not be read, by what they probably mean: "train.steps".
  // "train." is some unknown key of train, "" the whole text.
  std::set<std::string>* unread = nullptr;
};

// Keys at the top of a file that only the caller knows, with their text: empty where not given.
using ExtraKeys = std::map<std::string, std::string, std::less<>>;

// Parses `text` (a whole YAML file) into `message` and `extra`.
void WalkYaml(std::string_view text, const WalkContext& context, google::protobuf::Message& message,
              ExtraKeys* extra = nullptr);

// One override "a.b.c" = `value`, a YAML scalar or flow list.
void WalkOverride(std::string_view path, std::string_view value, const WalkContext& context,
                  google::protobuf::Message& message);

// Takes back what `message` and the provenance say of a key, or of a group of keys.
void UnsetKey(std::string_view path, const WalkContext& context,
              google::protobuf::Message& message);

// Bytes that a user wrote, for an error: one printable line, cut after `bytes_max`.
inline constexpr size_t kShownBytesMax = 60;
std::string Shown(std::string_view text, size_t bytes_max = kShownBytesMax);

// `candidates` nearest to `word`, or empty where none is near.
std::string Nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace troupe
