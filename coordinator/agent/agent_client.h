// AgentClient: the host agent's connection to the coordinator: the Attend stream, kept open. The
// only gRPC of the agent; its callbacks post to the scheduler.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "coordinator/agent/host_agent.h"

namespace troupe {

class AgentClient {
 public:
  // Tries again every second until destroyed. `agent` outlives the client.
  static std::unique_ptr<AgentClient> Connect(HostAgent& agent, Scheduler& scheduler,
                                              const std::string& coordinator);
  virtual ~AgentClient() = default;
  // Ends the connection when the coordinator has all that was said, then calls `gone` once on the
  // scheduler; no other is tried. Where nobody listens `gone` does not come.
  virtual void Leave(std::function<void()> gone) = 0;
};

}  // namespace troupe
