// What a job's ranks must agree on before they work together, as they say it themselves: build,
// room on their hosts, content of their files. Pure.
#pragma once

#include <span>
#include <string>

#include "proto/worker.pb.h"
#include "runtime/base/result.h"

namespace troupe {

// A rank's own words; by rank, and outlived by them.
struct RankWords {
  std::string host{};  // its name
  const proto::Hello* hello = nullptr;
  const proto::Ready* ready = nullptr;  // null: not yet
};

// kInfeasible where the ranks of a host need more memory, by their plan, than it has. A host or a
// rank that does not know its bytes is not judged.
Status CheckRoomOnHosts(std::span<const RankWords> ranks);

// kInvalidSpec where data.train or model.init_from are other bytes on one host than on another.
// Every rank is Ready; those that read neither have no say.
Status CheckSameContent(std::span<const RankWords> ranks, const proto::JobSpec& spec);

}  // namespace troupe
