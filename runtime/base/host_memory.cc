#include "runtime/base/host_memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>
#include <vector>

namespace troupe {
namespace {

constexpr int64_t kFileBytesMax = int64_t{1} << 20;
constexpr int64_t kKibibyte = 1024;

// The whole number that `text` begins with, after spaces.
std::optional<int64_t> NumberOf(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return std::nullopt;
  return number;
}

// What follows `key` at the start of a line.
std::optional<int64_t> NumberAfter(std::string_view text, std::string_view key) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (line.starts_with(key)) return NumberOf(line.substr(key.size()));
    at = end + 1;
  }
  return std::nullopt;
}

std::string TextOf(FileSystem& files, const std::string& path) {
  auto text = files.ReadFile(path, kFileBytesMax);
  return text.ok() ? *std::move(text) : "";
}

// The names that the two versions of cgroups have for the same.
struct CgroupNames {
  std::string_view mount;
  std::string_view limit;
  std::string_view usage;
  std::string_view inactive;  // in memory.stat: file pages that go first
  std::string_view events;    // has a line "oom_kill N"
};
constexpr CgroupNames kV1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                             "memory.usage_in_bytes", "total_inactive_file ", "memory.oom_control"};
constexpr CgroupNames kV2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ",
                             "memory.events"};

void CutByCgroup(FileSystem& files, const std::string& root, const CgroupNames& names,
                 std::string path, HostMemory& memory) {
  // Every level limits. In a container the mount may begin below the path that the process sees;
  // then the mount's own top is what limits.
  while (true) {
    const std::string folder = fmt::format("{}{}{}", root, names.mount, path == "/" ? "" : path);
    const std::string file = JoinPath(folder, names.limit);
    const auto limit = NumberOf(TextOf(files, file));  // "max": none
    if (limit && *limit < memory.total_bytes) {
      memory.total_bytes = *limit;
      memory.bound = file;
    }
    if (limit) {
      const int64_t used =
          NumberOf(TextOf(files, JoinPath(folder, names.usage))).value_or(0) -
          NumberAfter(TextOf(files, JoinPath(folder, "memory.stat")), names.inactive).value_or(0);
      memory.available_bytes = std::min(memory.available_bytes,
                                        std::max<int64_t>(0, *limit - std::max<int64_t>(0, used)));
    }
    if (path.empty() || path == "/") return;
    path.resize(path.rfind('/'));
  }
}

struct Cgroup {
  const CgroupNames& names;
  std::string path;
};

// Those that account for this process's memory.
std::vector<Cgroup> MemoryCgroups(FileSystem& files, const std::string& root) {
  std::vector<Cgroup> found;
  const std::string text = TextOf(files, root + "/proc/self/cgroup");
  for (size_t at = 0; at < text.size();) {  // "hierarchy:controllers:path"
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos || !line.substr(second + 1).starts_with('/')) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const std::string path(line.substr(second + 1));
    if (controllers.find(",memory,") != controllers.npos) {
      found.push_back({kV1, path});
    } else if (line.starts_with("0::")) {
      found.push_back({kV2, path});
    }
  }
  return found;
}

}  // namespace

std::optional<HostMemory> ReadHostMemory(FileSystem& files, const std::string& root) {
  const std::string meminfo = TextOf(files, root + "/proc/meminfo");
  const auto total = NumberAfter(meminfo, "MemTotal:");
  const int64_t kibibytes_max = std::numeric_limits<int64_t>::max() / kKibibyte;
  if (!total || *total > kibibytes_max) return std::nullopt;
  const int64_t available = NumberAfter(meminfo, "MemAvailable:").value_or(*total);
  HostMemory memory{.total_bytes = *total * kKibibyte,
                    .available_bytes = std::min(available, *total) * kKibibyte};
  for (const Cgroup& cgroup : MemoryCgroups(files, root)) {
    CutByCgroup(files, root, cgroup.names, cgroup.path, memory);
  }
  memory.available_bytes = std::min(memory.available_bytes, memory.total_bytes);
  if (!root.empty()) return memory;
  for (const auto resource : {RLIMIT_AS, RLIMIT_DATA}) {
    rlimit limit{};
    if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) continue;
    if (std::cmp_less(limit.rlim_cur, memory.process_bytes)) {
      memory.process_bytes = static_cast<int64_t>(limit.rlim_cur);
    }
  }
  return memory;
}

std::optional<int64_t> ReadOomKills(FileSystem& files, const std::string& root) {
  for (const Cgroup& cgroup : MemoryCgroups(files, root)) {
    // The nearest that tells: in a container the mount may begin below the path.
    for (std::string path = cgroup.path;; path.resize(path.rfind('/'))) {
      const std::string folder =
          fmt::format("{}{}{}", root, cgroup.names.mount, path == "/" ? "" : path);
      const auto kills =
          NumberAfter(TextOf(files, JoinPath(folder, cgroup.names.events)), "oom_kill ");
      if (kills) return kills;
      if (path.empty() || path == "/") break;
    }
  }
  return std::nullopt;
}

}  // namespace troupe
