// RankTraffic: what one rank sent to the others of its pipeline since its start, in training steps
// alone: what evaluating and sampling send is left out. What its groups sent, they count
// (runtime/collective/group.h), and its shards theirs (shard_channels.h).
// Thread: the rank's actor thread.
#pragma once

#include <cstdint>
#include <map>

#include "actors/schedule/schedule.h"

namespace troupe {

struct SentOutputs {
  int64_t count = 0;
  int64_t bytes = 0;
};

struct RankTraffic {
  bool in_training_step = false;               // from its start to its update
  int64_t steps = 0;                           // that the rank has finished
  std::map<InputKind, SentOutputs> outputs{};  // to other ranks

  void EndStep() {
    ++steps;
    in_training_step = false;
  }
};

}  // namespace troupe
