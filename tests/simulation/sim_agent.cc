#include "tests/simulation/sim_agent.h"

#include <csignal>
#include <utility>

#include "tests/simulation/sim_coordinator.h"

namespace troupe::testing {
namespace {

constexpr int kRetryMs = 1000;
constexpr int kFirstPid = 1000;

// What the agent holds of a rank's process.
class SimRank : public RankProcess {
 public:
  explicit SimRank(SimProcess& process) : process_(process) {}
  ~SimRank() override {
    process_.Die({.signal = SIGKILL});
    process_.StopHearing();
  }
  void Send(std::string_view frame) override { process_.Take(std::string(frame)); }
  void Signal(int signal) override {
    if (signal == SIGKILL) process_.Die({.signal = SIGKILL});
  }
  bool closed() const override { return process_.silenced(); }
  bool IsStopped() const override { return process_.frozen(); }
  void PausePrints(bool) override {}
  void HearLastWords() override {}  // they have all come before the exit
  const std::deque<std::string>& last_lines() const override { return last_lines_; }

 private:
  SimProcess& process_;
  const std::deque<std::string> last_lines_{};
};

}  // namespace

SimAgent::SimAgent(SimWorld& world, HostIndex host, int slots, FindCoordinator find)
    : world_(world),
      host_(host),
      find_(std::move(find)),
      scheduler_(std::make_unique<Scheduler>(
          SchedulerOptions{.clock = &world.clock, .spin_us = 0, .trace_handlers = false})) {
  agent_ = std::make_unique<HostAgent>(
      HostAgentOptions{.name = fmt::format("host-{}", host), .slots = slots},
      AgentSeams{*scheduler_, world_.shared,
                 [this](const std::string&, RankProcess::Handlers handlers) {
                   return StartRank(std::move(handlers));
                 }});
  participant_ = world_.driver.Add([this] { return scheduler_->RunUntilIdle(); },
                                   [this] { return scheduler_->NextDeadlineNs(); });
  scheduler_->Post([this] { Open(); });
}

SimAgent::~SimAgent() {
  if (alive_) Die();
}

void SimAgent::Die() {
  alive_ = false;
  world_.Log("agent {} dies", host_);
  if (connection_) connection_->AgentEnds();
  connection_.reset();
  for (const auto& process : processes_) process->Die({.signal = SIGKILL});
  world_.driver.Remove(participant_);
  agent_.reset();
  scheduler_.reset();
}

Result<std::unique_ptr<RankProcess>> SimAgent::StartRank(RankProcess::Handlers handlers) {
  const int pid = kFirstPid * (host_ + 1) + static_cast<int>(processes_.size());
  processes_.push_back(
      std::make_unique<SimProcess>(world_, host_, pid, *scheduler_, std::move(handlers)));
  return std::unique_ptr<RankProcess>(std::make_unique<SimRank>(*processes_.back()));
}

std::vector<SimProcess*> SimAgent::LiveProcesses() const {
  std::vector<SimProcess*> live;
  for (const auto& process : processes_) {
    if (process->alive()) live.push_back(process.get());
  }
  return live;
}

// ---- the stream to the coordinator -------------------------------------------------------------

void SimAgent::Open() {
  connection_ = std::make_shared<SimConnection>(world_, *this, find_);
  agent_->Connected(
      [connection = connection_](const proto::FromAgent& message) { connection->Say(message); });
}

void SimAgent::Ended(const SimConnection* connection) {
  if (connection_.get() != connection) return;
  world_.Log("agent {}: its connection has ended", host_);
  connection_.reset();
  agent_->Disconnected();
  scheduler_->After(kRetryMs, [this] { Open(); });
}

void SimAgent::LoseConnection() {
  if (!connection_) return;
  connection_->AgentEnds();
  scheduler_->Post([this, connection = connection_] { Ended(connection.get()); });
}

}  // namespace troupe::testing
