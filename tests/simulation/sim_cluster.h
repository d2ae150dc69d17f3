// A whole cluster in one thread: a coordinator, host agents and the ranks that they start, all of
// them the real code over seams, on one virtual clock. Faults come by calls; the invariants are
// looked at after every event.
//
// Outside of it: gRPC (SimConnection and direct calls stand for it), the command line, the kernel
// (processes, sockets, disks), and what a stage computes.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <tuple>
#include <vector>

#include "tests/simulation/sim_agent.h"
#include "tests/simulation/sim_coordinator.h"
#include "tests/simulation/sim_world.h"

namespace troupe::testing {

struct SimClusterOptions {
  uint64_t seed = 0;
  int num_agents = 2;  // on hosts 1, 2, …
  int slots = 2;       // of each
};

class SimCluster {
 public:
  explicit SimCluster(const SimClusterOptions& options);
  ~SimCluster();

  // Until `done`, or an invariant does not hold. False: it does not, or nothing came in time.
  bool RunUntil(const std::function<bool()>& done, int64_t limit_ns);

  // ---- faults ----
  void KillCoordinator();
  void StartCoordinator();
  void KillAgent(HostIndex host);
  void StartAgent(HostIndex host);
  // Nothing that leaves `from` for `to` arrives until Heal: neither the agents' streams nor what
  // ranks send each other.
  void Cut(HostIndex from, HostIndex to);
  void Heal(HostIndex from, HostIndex to);

  SimWorld& world() { return world_; }
  SimCoordinator* coordinator() {
    return coordinators_.back()->alive() ? coordinators_.back().get() : nullptr;
  }
  SimAgent* agent(HostIndex host);  // null: it is dead
  int num_joined();                 // agents that the coordinator knows
  std::vector<SimProcess*> LiveProcesses() const;

 private:
  void Look();
  SeenProcess See(const SimProcess& process, const SimAgent& agent);
  // Applies the cuts of the hosts to the networks of the ranks, those that have come since too.
  void CutRanks();

  struct CutLink {
    HostIndex from = 0;
    HostIndex to = 0;
    int64_t since_ns = 0;
  };

  const SimClusterOptions options_;
  SimWorld world_;
  std::vector<std::unique_ptr<SimCoordinator>> coordinators_{};  // the dead ones too
  std::vector<std::unique_ptr<SimAgent>> agents_{};              // likewise
  std::vector<CutLink> cuts_{};
  std::set<std::tuple<JobEpoch, int32_t, int32_t>> cut_ranks_{};
  int64_t looked_ns_ = -1;
};

}  // namespace troupe::testing
