// What strikes a simulated job: one fault by seed, in some seeds a second one of another kind. Each
// comes at a time, which may be before anything has begun, or in the middle of training; one that
// finds nobody to strike tries again until the job is over.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/sim_client.h"
#include "tests/simulation/sim_cluster.h"

namespace troupe::testing {

enum class SimFault : uint8_t {
  kNone,
  kKillRank,
  kKillRankInWork,  // in the middle of what it writes
  kStopRank,        // SIGSTOP, for a while
  kKillAgent,
  kKillCoordinator,
  kCut,  // one way between two hosts, for a while
  kSlowLinks,
  kStillDisk,  // answers nothing for a while
  kFullDisk,
  kCancel,       // by its client, with a checkpoint or without, or at once
  kLoseMessage,  // of data, between two ranks
  kStuckStream,  // an action that never ends
};
inline constexpr int kSimFaults = 13;
std::string_view NameOf(SimFault fault);

class Faults {
 public:
  struct Fault {
    SimFault kind = SimFault::kNone;
    bool struck = false;  // it met something that could feel it
  };

  Faults(SimCluster& cluster, uint64_t seed);

  // Makes the job one that the faults can meet.
  void Shape(proto::JobSpec& spec) const;
  // Client, spec and this live until the job is over.
  void Arrange(SimClient& client, const proto::JobSpec& spec);
  // The job is: what has not struck never does, and what lasts for long is mended.
  void End();

  const std::vector<Fault>& all() const { return faults_; }
  // How the job may end, by what has struck so far.
  const PossibleEnds& ends() const { return ends_; }
  int64_t calm_ns() const { return calm_ns_; }  // when the last of them has passed

 private:
  static constexpr int kHangSeconds = 20;  // of jobs that hang

  bool Has(SimFault kind) const;
  double Draw(std::string_view name) { return world_.Draw(name); }
  int DrawInt(std::string_view name, int least, int most) {
    return least + static_cast<int>(Draw(name) * (most - least + 1));
  }
  void Arrange(Fault& fault, int64_t num_steps);
  void Strike(Fault& fault);
  bool TryTo(Fault& fault);  // false: there was nobody to strike
  void Later(int64_t delay_ns, std::function<void()> act);
  void MayFail(std::vector<std::string> causes);
  SimProcess* Victim();

  bool KillRank(Fault& fault, bool in_work);
  bool StopRank(Fault& fault);
  bool KillAgent(Fault& fault);
  bool KillCoordinator(Fault& fault);
  bool Cut(Fault& fault);
  bool SlowLinks(Fault& fault);
  bool StillDisk(Fault& fault);
  bool FillDisk(Fault& fault);
  bool Cancel(Fault& fault);
  bool LoseMessage(Fault& fault);
  bool StickStream(Fault& fault);

  SimCluster& cluster_;
  SimWorld& world_;
  std::vector<Fault> faults_{};
  SimClient* client_ = nullptr;
  std::vector<std::function<void(int64_t step)>> on_step_{};
  bool over_ = false;
  PossibleEnds ends_{};
  int64_t calm_ns_ = 0;
  std::vector<std::function<void()>> mend_{};
};

}  // namespace troupe::testing
