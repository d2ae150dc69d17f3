// The coordinator's process in the simulator: the counterpart of `troupe coordinator`. The real
// state, ops, job lives and run directories on the virtual clock; agents come by SimConnections,
// clients by calls.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/job_life.h"
#include "coordinator/ops/attend.h"
#include "coordinator/ops/cancel.h"
#include "coordinator/ops/submit.h"
#include "tests/simulation/sim_world.h"

namespace troupe::testing {

class SimAgent;
class SimConnection;

class SimCoordinator {
 public:
  SimCoordinator(SimWorld& world, CoordinatorOptions options);
  ~SimCoordinator();
  SimCoordinator(const SimCoordinator&) = delete;
  SimCoordinator& operator=(const SimCoordinator&) = delete;

  void Die();
  bool alive() const { return alive_; }
  State& state() { return *state_; }
  Scheduler& scheduler() { return *scheduler_; }
  Seams seams() { return {*scheduler_, files_, *planner_, *disk_}; }
  void Submit(proto::SubmitRequest request, Answer<proto::SubmitReply> answer);
  void Cancel(const proto::CancelRequest& request);
  // The job that is known under this number; null where there is none.
  JobLife* Find(uint64_t job);
  void Connected(std::shared_ptr<SimConnection> connection);

 private:
  SimWorld& world_;
  bool alive_ = true;
  SimFiles files_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<State> state_;
  std::unique_ptr<SimStream> planner_;
  std::unique_ptr<SimStream> disk_;
  NewRecorder new_recorder_{};
  std::vector<std::shared_ptr<SimConnection>> connections_{};
  SimDriver::ParticipantId participant_ = 0;
};

// One attempt of an agent at the coordinator's Attend stream. Messages keep their order each way
// and meet the delays and cuts of the hosts' links; who dies at one end is told to the other.
class SimConnection : public AgentPort, public std::enable_shared_from_this<SimConnection> {
 public:
  SimConnection(SimWorld& world, SimAgent& agent, std::function<SimCoordinator*()> find)
      : world_(world), agent_(agent), find_(std::move(find)) {}

  // ---- the agent's end ----
  void Say(const proto::FromAgent& message);
  // The agent has died, or given the stream up.
  void AgentEnds();

  // ---- the coordinator's end ----
  void Send(const proto::ToAgent& command) override;
  void Close() override;
  void CoordinatorDied();

 private:
  void Arrive(const proto::FromAgent& message);
  // The coordinator's end is over; later on its loop.
  void EndAttendance();
  void TellAgentOfTheEnd();
  bool attended() const { return attendance_ != nullptr && coordinator_->alive(); }

  SimWorld& world_;
  SimAgent& agent_;
  const std::function<SimCoordinator*()> find_;
  bool agent_there_ = true;
  SimCoordinator* coordinator_ = nullptr;  // that took the first word
  std::unique_ptr<Attendance> attendance_{};
};

}  // namespace troupe::testing
