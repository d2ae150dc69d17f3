// A rank's process in the simulator: the counterpart of troupe-rank's main program. A scheduler and
// the real root on the virtual clock, a transport of its job's network, stages that only cost time,
// and the control socket of its agent as a link with a delay.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "actors/rank_root.h"
#include "coordinator/agent/rank_process.h"
#include "tests/simulation/cost_stage.h"
#include "tests/simulation/sim_world.h"

namespace troupe::testing {

class SimProcess {
 public:
  // What its agent hears. Calls are made as posts to `agent`, in order, and come no more after
  // StopHearing.
  SimProcess(SimWorld& world, HostIndex host, int pid, Scheduler& agent,
             RankProcess::Handlers handlers);
  ~SimProcess();
  SimProcess(const SimProcess&) = delete;
  SimProcess& operator=(const SimProcess&) = delete;

  // ---- of its agent ----
  void Take(std::string frame);  // arrives after a delay
  void StopHearing() { handlers_.reset(); }
  bool silenced() const { return silenced_; }

  // ---- of the machine ----
  // It does nothing from now on; what it leaves is cleared away later.
  void Die(ExitReport report);
  void Freeze(bool frozen);
  // It is killed in the middle of a piece of work: instead of its `number`-th change to the disk.
  // `dies` is called just before.
  void DieAtChange(int64_t number, std::function<void()> dies);
  // The next action on its stream never ends. `stuck` is called when it begins.
  void StickNextAction(std::function<void()> stuck) { stuck_ = std::move(stuck); }

  int pid() const { return pid_; }
  HostIndex host() const { return host_; }
  bool alive() const { return alive_; }
  bool frozen() const { return frozen_; }
  bool swept() const { return root_ == nullptr; }
  const std::optional<proto::StartRank>& start() const { return start_; }
  WaitBoard& waits() { return scheduler_->waits(); }
  // Clears away what is left of a dead process, from outside of its own work.
  void Sweep();

 private:
  RankSeams Seams();
  Result<std::unique_ptr<Transport>> NewTransport(const TransportNeeds& needs);
  Result<LoadedRank> Load(const proto::StartRank& start, const JobPlan& plan, MemoryLedger& ledger);
  SpawnedStage SpawnStage(const RankPlace& place, StageId stage);
  int64_t DrawCostNs();
  void Order(const std::string& frame);
  void Say(const proto::FromRank& news);
  // Posts to the agent what a handler is called with.
  void Tell(std::function<void(RankProcess::Handlers&)> call);
  SimNetwork& Network();

  SimWorld& world_;
  const HostIndex host_;
  const int pid_;
  Scheduler& agent_;
  std::shared_ptr<RankProcess::Handlers> handlers_;
  bool silenced_ = false;
  bool alive_ = true;
  bool frozen_ = false;
  std::optional<proto::StartRank> start_{};
  SimFiles files_;
  std::function<void()> stuck_{};
  MemoryLedger stage_bytes_{};
  std::map<StageId, StageModel*> models_{};  // the root's
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<RankRoot> root_{};
  SimDriver::ParticipantId participant_ = 0;
  int64_t last_order_ns_ = 0;
  int64_t last_word_ns_ = 0;
  const std::shared_ptr<bool> there_ = std::make_shared<bool>(true);
};

}  // namespace troupe::testing
