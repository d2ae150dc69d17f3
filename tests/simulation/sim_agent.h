// A host agent's process in the simulator: the counterpart of `troupe worker`. The real agent on
// the virtual clock; its ranks are SimProcesses, its stream to the coordinator a SimConnection that
// is opened anew a second after it has ended, as the client of the real one does.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coordinator/agent/host_agent.h"
#include "tests/simulation/sim_process.h"

namespace troupe::testing {

class SimCoordinator;
class SimConnection;

class SimAgent {
 public:
  // Who listens on the coordinator's host now; null where nobody does.
  using FindCoordinator = std::function<SimCoordinator*()>;

  SimAgent(SimWorld& world, HostIndex host, int slots, FindCoordinator find);
  ~SimAgent();
  SimAgent(const SimAgent&) = delete;
  SimAgent& operator=(const SimAgent&) = delete;

  void Die();  // its ranks with it: the kernel sees to that

  bool alive() const { return alive_; }
  HostIndex host() const { return host_; }
  Scheduler& scheduler() { return *scheduler_; }
  HostAgent& agent() { return *agent_; }
  const std::vector<std::unique_ptr<SimProcess>>& processes() const { return processes_; }
  std::vector<SimProcess*> LiveProcesses() const;
  // A cut to or from the coordinator has lasted for long: the stream's keepalive has given up.
  void LoseConnection();

 private:
  friend class SimConnection;
  Result<std::unique_ptr<RankProcess>> StartRank(RankProcess::Handlers handlers);
  void Open();
  void Ended(const SimConnection* connection);

  SimWorld& world_;
  const HostIndex host_;
  const FindCoordinator find_;
  bool alive_ = true;
  std::vector<std::unique_ptr<SimProcess>> processes_{};
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<HostAgent> agent_;
  std::shared_ptr<SimConnection> connection_{};
  SimDriver::ParticipantId participant_ = 0;
};

}  // namespace troupe::testing
