// metrics.jsonl and events.jsonl: one JSON object a line, floats with 17 significant digits, so
// that a reader gets back the very double that was written. Used by the coordinator and the command
// line on their loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// Builds one line; keys keep the order in which they were added. Not-finite floats become null, the
// only value that JSON has for them.
class JsonLine {
 public:
  JsonLine& Add(std::string_view key, double value);
  JsonLine& Add(std::string_view key, int64_t value);
  JsonLine& Add(std::string_view key, int value) { return Add(key, int64_t{value}); }
  JsonLine& Add(std::string_view key, bool value);
  JsonLine& Add(std::string_view key, std::string_view value);
  JsonLine& Add(std::string_view key, const char* value) {
    return Add(key, std::string_view(value));
  }
  // `json` is a value in JSON already: an array, a nested object.
  JsonLine& AddJson(std::string_view key, std::string_view json);

  std::string Text() const;  // "{…}", no newline

 private:
  void AddKey(std::string_view key);
  std::string body_;
};

// `text` as a JSON string with its quotes; bytes that are not UTF-8 are replaced.
std::string JsonString(std::string_view text);

// Calls `on_line` with every whole line, without its newline, of a file of any size; a line
// longer than 16 MiB is none of ours and is passed over. No file is no error.
Status ForEachLine(FileSystem& files, const std::string& path,
                   const std::function<void(std::string_view)>& on_line);

// Drops, atomically, every line whose "step" exceeds `step`, and a line cut off by a crash. Lines
// without a "step" stay. No file is no error.
Status CutBackToStep(FileSystem& files, const std::string& path, int64_t step);

}  // namespace troupe
