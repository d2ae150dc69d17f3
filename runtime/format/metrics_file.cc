#include "runtime/format/metrics_file.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "runtime/base/utf8.h"
#include "runtime/format/json_reader.h"

namespace troupe {
namespace {

constexpr int64_t kFileMaxBytes = int64_t{4} << 30;
constexpr JsonBounds kLineBounds{.max_depth = 16, .max_values = 100'000};

// Whether the line stays when a run goes on after `step`.
bool Stays(std::string_view line, int64_t step) {
  const auto parsed = ParseJson(line, "", kLineBounds);
  if (!parsed.ok() || !parsed->is_object()) return false;
  const auto found = parsed->find("step");
  if (found == parsed->end()) return true;
  const auto number = WholeNumber(*found);
  return !number || *number <= step;
}

}  // namespace

void JsonLine::AddKey(std::string_view key) {
  if (!body_.empty()) body_ += ',';
  body_ += JsonString(key);
  body_ += ':';
}

JsonLine& JsonLine::Add(std::string_view key, double value) {
  AddKey(key);
  body_ += std::isfinite(value) ? fmt::format("{:.17g}", value) : "null";
  return *this;
}

JsonLine& JsonLine::Add(std::string_view key, int64_t value) {
  AddKey(key);
  body_ += fmt::format("{}", value);
  return *this;
}

JsonLine& JsonLine::Add(std::string_view key, bool value) {
  AddKey(key);
  body_ += value ? "true" : "false";
  return *this;
}

JsonLine& JsonLine::Add(std::string_view key, std::string_view value) {
  AddKey(key);
  body_ += JsonString(value);
  return *this;
}

JsonLine& JsonLine::AddJson(std::string_view key, std::string_view json) {
  AddKey(key);
  body_ += json;
  return *this;
}

std::string JsonLine::Text() const { return fmt::format("{{{}}}", body_); }

std::string JsonString(std::string_view text) {
  std::string quoted = "\"";
  while (!text.empty()) {
    const size_t length = Utf8CharacterBytes(text, 0);
    const char c = text[0];
    if (length == 0) {
      quoted += "\xef\xbf\xbd";  // U+FFFD
    } else if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      quoted += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return quoted + '"';
}

Status CutBackToStep(FileSystem& files, const std::string& path, int64_t step) {
  if (!files.Exists(path)) return {};
  ASSIGN_OR_RETURN(const std::string text, files.ReadFile(path, kFileMaxBytes));
  std::string kept;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // the line that a crash cut off
    const std::string_view line(text.data() + begin, end - begin);
    if (Stays(line, step)) kept.append(line).append("\n");
    begin = end + 1;
  }
  if (kept.size() == text.size()) return {};
  return WriteFileAtomically(files, path, kept);
}

}  // namespace troupe
