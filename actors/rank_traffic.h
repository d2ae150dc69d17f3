// RankTraffic: what one rank sent to the others of its pipeline since its start, in training steps
// alone: what evaluating and sampling send is left out. What its groups sent, they count
// (runtime/collective/group.h), its shards theirs (shard_channels.h), and its ring its own
// (ring_attention_actor.h).
// Thread: the rank's actor thread.
#pragma once

#include <cstdint>
#include <functional>
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
  // For those who count all that they send: a training step begins (true) or has ended.
  std::function<void(bool begins)> on_step{};

  void BeginStep(bool trains) {
    in_training_step = trains;
    if (trains && on_step) on_step(true);
  }
  void EndStep() {
    ++steps;
    in_training_step = false;
    if (on_step) on_step(false);
  }
};

}  // namespace troupe
