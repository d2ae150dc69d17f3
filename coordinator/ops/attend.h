// Attend: a host agent's messages. The door opens with Join and hands every later message to
// AgentSaid.
#pragma once

#include "coordinator/state.h"

namespace troupe {

struct Joined {
  HostId host = 0;
  proto::ToAgent welcome{};
};
// Hosts of one name get numbers: "node", "node-2".
Result<Joined> JoinHost(State& state, Seams seams, const proto::Join& join, AgentPort* port);

void AgentSaid(State& state, Seams seams, HostId host, const proto::FromAgent& message);

// Drops agents that have been silent for dead_after_ms of a clock that stands still while the
// coordinator does (runtime/base/awake_clock.h). Called by a timer.
void DropSilentHosts(State& state, Seams seams);

}  // namespace troupe
