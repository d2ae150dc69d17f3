// Attend: a host agent's messages. Whatever carries them (the gRPC stream, a simulated link) hands
// them to an Attendance.
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

// One agent's connection, from its opening to its end.
class Attendance {
 public:
  // `port` is the agent's end; all outlive this.
  Attendance(State& state, Seams seams, AgentPort& port)
      : state_(state), seams_(seams), port_(port) {}
  // The first is Join. An error ends the connection with it.
  Status Take(const proto::FromAgent& message);
  void Ended();

 private:
  State& state_;
  const Seams seams_;
  AgentPort& port_;
  HostId host_ = 0;  // 0: it has not joined
};

// Drops agents that have been silent for dead_after_ms of a clock that stands still while the
// coordinator does (runtime/base/awake_clock.h).
void DropSilentHosts(State& state, Seams seams);
// Looks for them again and again, as long as the scheduler runs.
void WatchHosts(State& state, Seams seams);

}  // namespace troupe
