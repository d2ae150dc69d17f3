#include "coordinator/job/absolute_paths.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "coordinator/job/yaml_scalar.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

std::string FollowLatest(FileSystem& files, std::string path) {
  constexpr std::string_view kLatest = "/latest";
  for (size_t at = path.find(kLatest); at != std::string::npos; at = path.find(kLatest, at + 1)) {
    const size_t end = at + kLatest.size();
    if (end < path.size() && path[end] != '/') continue;
    const auto target = files.ReadLink(path.substr(0, end));
    if (target.ok()) path = AbsolutePath(path.substr(0, at), *target + path.substr(end));
  }
  return path;
}

// Where the scalar at `begin`, which says `value`, ends: in quotes behind the closing one. `begin`
// itself where that cannot be told.
size_t EndOfScalar(std::string_view text, size_t begin, std::string_view value) {
  const char quote = text[begin];
  if (quote != '"' && quote != '\'') {
    return text.substr(begin).starts_with(value) ? begin + value.size() : begin;
  }
  for (size_t at = begin + 1; at < text.size() && text[at] != '\n';) {
    const bool escaped = quote == '"' ? text[at] == '\\' : text.substr(at).starts_with("''");
    if (!escaped && text[at] == quote) return at + 1;
    at += escaped ? 2 : 1;
  }
  return begin;
}

size_t OffsetOf(std::string_view text, const Place& place) {
  size_t at = text.starts_with("\xef\xbb\xbf") ? 3 : 0;
  for (int line = 1; line < place.line; ++line) {
    at = text.find('\n', at);
    if (at == std::string_view::npos) return text.size();
    ++at;
  }
  return at + static_cast<size_t>(place.column) - 1;
}

}  // namespace

std::string AbsolutePath(const std::string& folder, const std::string& path) {
  // Asking the disk would throw for what can be no path.
  std::string absolute = (fs::path(folder) / path).lexically_normal().string();
  if (absolute.size() > 1 && absolute.ends_with('/')) absolute.pop_back();
  return absolute;
}

std::vector<Edit> ResolvePaths(FileSystem& files, const std::string& folder,
                               const Provenance& provenance, proto::JobSpec& spec) {
  std::vector<Edit> edits;
  const auto resolve = [&](std::string_view key, std::string* path) {
    if (path->empty()) return;
    std::string absolute = FollowLatest(files, AbsolutePath(folder, *path));
    if (absolute == *path) return;
    const auto origin = provenance.find(key);
    if (origin != provenance.end()) edits.push_back({origin->second.place, *path, absolute});
    *path = std::move(absolute);
  };
  if (spec.data().has_train()) resolve("data.train", spec.mutable_data()->mutable_train());
  if (spec.model().has_config()) resolve("model.config", spec.mutable_model()->mutable_config());
  if (spec.model().has_init_from()) {
    resolve("model.init_from", spec.mutable_model()->mutable_init_from());
  }
  if (spec.parallelism().has_schedule_csv()) {
    resolve("parallelism.schedule_csv", spec.mutable_parallelism()->mutable_schedule_csv());
  }
  const std::string& resume = spec.checkpoint().resume();
  if (!resume.empty() && resume != "never" && resume != "auto") {
    resolve("checkpoint.resume", spec.mutable_checkpoint()->mutable_resume());
  }
  return edits;
}

std::string WithEdits(std::string_view text, std::vector<Edit> edits) {
  // From the end, so that places before stay where they are.
  std::ranges::sort(edits, [](const Edit& a, const Edit& b) {
    return std::pair(a.place.line, a.place.column) > std::pair(b.place.line, b.place.column);
  });
  std::string edited(text);
  for (const Edit& edit : edits) {
    if (edit.place.line == 0) continue;
    const size_t begin = OffsetOf(text, edit.place);
    if (begin >= text.size()) continue;
    const size_t end = EndOfScalar(text, begin, edit.from);
    if (end > begin) edited.replace(begin, end - begin, YamlText(edit.to));
  }
  return edited;
}

}  // namespace troupe
