// How much memory this machine has for a job: what /proc/meminfo says, cut by the limits of the
// cgroups (v1 and v2) that this process is in, and by its own. The plan, the command line and the
// ranks ask here; the host agent
// asks whom the kernel killed for want of it.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "runtime/base/file_system.h"

namespace troupe {

struct HostMemory {
  int64_t total_bytes = 0;      // that all processes here may hold together
  int64_t available_bytes = 0;  // of those, free or freed without harm now; at most total_bytes
  std::string bound = "host";   // what sets total_bytes: "host", or the cgroup's file
  int64_t process_bytes =
      std::numeric_limits<int64_t>::max();  // one process's share: ulimit -v, -d
};

// Files are read under `root`; the machine's own ("") have this process's limits too. A limit that
// cannot be read does not count; nothing where even the host's memory is unknown.
std::optional<HostMemory> ReadHostMemory(FileSystem& files, const std::string& root = "");

// How many processes of this process's cgroup the kernel has killed for want of memory, ever;
// nothing where the cgroup does not tell. Files are read under `root`.
std::optional<int64_t> ReadOomKills(FileSystem& files, const std::string& root = "");

}  // namespace troupe
