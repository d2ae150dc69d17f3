#include "runtime/format/metrics_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/base/utf8.h"
#include "runtime/format/json_reader.h"

namespace troupe {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr size_t kLineBytesMax = size_t{16} << 20;
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

Status ForEachLine(FileSystem& files, const std::string& path,
                   const std::function<void(std::string_view)>& on_line) {
  if (!files.Exists(path)) return {};
  ASSIGN_OR_RETURN(const auto file, files.OpenForRead(path));
  ASSIGN_OR_RETURN(const FileVersion version, file->Version());
  std::string line;
  bool too_long = false;
  std::vector<char> piece;
  for (int64_t at = 0; at < version.num_bytes; at += std::ssize(piece)) {
    piece.resize(std::min(kPieceBytes, static_cast<size_t>(version.num_bytes - at)));
    RETURN_IF_ERROR(file->ReadAt(at, std::as_writable_bytes(std::span(piece))));
    for (auto begin = piece.begin(); begin != piece.end();) {
      const auto end = std::find(begin, piece.end(), '\n');
      too_long = too_long || line.size() + static_cast<size_t>(end - begin) > kLineBytesMax;
      if (!too_long) line.append(begin, end);
      if (end == piece.end()) break;  // the line goes on, or a crash cut it off
      if (!too_long) on_line(line);
      line.clear();
      too_long = false;
      begin = end + 1;
    }
  }
  return {};
}

Status CutBackToStep(FileSystem& files, const std::string& path, int64_t step) {
  if (!files.Exists(path)) return {};
  int64_t num_kept_bytes = 0;
  RETURN_IF_ERROR(ForEachLine(files, path, [&](std::string_view line) {
    if (Stays(line, step)) num_kept_bytes += static_cast<int64_t>(line.size()) + 1;
  }));
  ASSIGN_OR_RETURN(const int64_t num_bytes, files.FileBytes(path));
  if (num_kept_bytes == num_bytes) return {};
  const std::string aside = path + ".partial";
  ASSIGN_OR_RETURN(const auto kept, files.OpenForWrite(aside, WriteMode::kTruncate));
  Status written;
  std::string piece;
  const auto write = [&](size_t at_least) {
    if (written.ok() && piece.size() >= at_least) {
      written = kept->Append(BytesOf(piece));
      piece.clear();
    }
  };
  RETURN_IF_ERROR(ForEachLine(files, path, [&](std::string_view line) {
    if (!Stays(line, step)) return;
    piece.append(line).append("\n");
    write(kPieceBytes);
  }));
  write(1);
  RETURN_IF_ERROR(std::move(written));
  RETURN_IF_ERROR(kept->Sync());
  RETURN_IF_ERROR(kept->Close());
  RETURN_IF_ERROR(files.Rename(aside, path));
  return files.SyncDirectory(FolderOf(path));
}

}  // namespace troupe
