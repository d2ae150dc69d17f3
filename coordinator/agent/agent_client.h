// AgentClient: the host agent's connection to the coordinator: the Attend stream, kept open. The
// only gRPC of the agent; its callbacks post to the scheduler.
#pragma once

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
};

}  // namespace troupe
