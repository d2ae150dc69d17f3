// The root of a stall: of everything that a job's ranks wait for, what nobody else's wait explains.
// Pure.
//
// Each wait is an edge from whoever waits to the ranks that owe. A root is an edge that leads no
// further: its ranks wait for nothing themselves, or nobody owes it (a disk, a stream's work). A
// rank that does not answer is one too. Where every edge leads on, ranks wait for each other in a
// circle, as they do for a message that was sent and never came: then the circle is the root.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "proto/worker.pb.h"

namespace troupe {

struct WaitsOfRank {
  std::string name{};  // "rank 1 (host a, pid 4712)"
  bool answered = false;
  std::string silence{};  // where it did not: what is known of it, or empty
  std::vector<proto::WaitEdge> edges{};
};

struct WaitRoot {
  // "rank 1: microbatch 3 Forward: activation from stage 0 (rank 0) for 301 s; rank 0 (host a, pid
  // 4711) waits for nothing"
  std::string sentence{};
  std::optional<int64_t> waited_ms{};  // none: a rank does not answer
};

// By rank. Of several roots a rank that does not answer, else the one that waits longest, else a
// circle, which has waited for as long as its shortest wait. None where nobody waits.
std::optional<WaitRoot> RootOfWaits(std::span<const WaitsOfRank> ranks);

}  // namespace troupe
