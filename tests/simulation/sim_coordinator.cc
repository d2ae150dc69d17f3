#include "tests/simulation/sim_coordinator.h"

#include <utility>

#include "coordinator/report/background_recorder.h"
#include "coordinator/report/run_directory.h"
#include "tests/simulation/sim_agent.h"

namespace troupe::testing {

SimCoordinator::SimCoordinator(SimWorld& world, CoordinatorOptions options)
    : world_(world),
      files_(*world.disks[0]),
      scheduler_(std::make_unique<Scheduler>(
          SchedulerOptions{.clock = &world.clock, .spin_us = 0, .trace_handlers = false})),
      state_(std::make_unique<State>()),
      planner_(std::make_unique<SimStream>(*scheduler_, world.driver, world.work)),
      disk_(std::make_unique<SimStream>(*scheduler_, world.driver, world.work)) {
  state_->options = std::move(options);
  state_->term = static_cast<uint64_t>(world.clock.WallUs());
  const auto first_job = FirstJob(files_, state_->options.state_directory);
  CHECK(first_job.ok(), "{}", first_job.error().message);
  state_->next_job = *first_job;
  new_recorder_ = [this](const std::string& path,
                         std::function<void(const std::string&)> on_trouble) {
    const auto post = [this, on_trouble = std::move(on_trouble)](const std::string& trouble) {
      scheduler_->Post([on_trouble, trouble] { on_trouble(trouble); });
    };
    return std::make_unique<BackgroundRecorder>(
        *disk_, std::make_unique<RunDirectory>(files_, world_.clock, path, post), post);
  };
  WatchHosts(*state_, seams());
  participant_ = world_.driver.Add([this] { return scheduler_->RunUntilIdle(); },
                                   [this] { return scheduler_->NextDeadlineNs(); });
}

SimCoordinator::~SimCoordinator() {
  if (alive_) Die();
}

void SimCoordinator::Die() {
  alive_ = false;
  world_.Log("the coordinator dies");
  files_.Die();
  for (const auto& connection : connections_) connection->CoordinatorDied();
  world_.driver.Remove(participant_);
  disk_.reset();
  planner_.reset();
  state_.reset();
  scheduler_.reset();
  connections_.clear();
}

void SimCoordinator::Submit(proto::SubmitRequest request, Answer<proto::SubmitReply> answer) {
  scheduler_->Post([this, request = std::move(request), answer = std::move(answer)] {
    troupe::Submit(*state_, seams(), new_recorder_, request, answer);
  });
}

void SimCoordinator::Cancel(const proto::CancelRequest& request) {
  scheduler_->Post([this, request] { (void)troupe::Cancel(*state_, request); });
}

JobLife* SimCoordinator::Find(uint64_t job) {
  const auto found = state_->jobs.find(job);
  return found == state_->jobs.end() ? nullptr : found->second.get();
}

void SimCoordinator::Connected(std::shared_ptr<SimConnection> connection) {
  connections_.push_back(std::move(connection));
}

// ---- connections -------------------------------------------------------------------------------

void SimConnection::Say(const proto::FromAgent& message) {
  if (!agent_there_) return;
  world_.links.Send(agent_.host(), 0,
                    [self = shared_from_this(), message] { self->Arrive(message); });
}

void SimConnection::Arrive(const proto::FromAgent& message) {
  if (coordinator_ == nullptr) {
    coordinator_ = find_();
    if (coordinator_ == nullptr) return TellAgentOfTheEnd();  // nobody listens
    attendance_ = std::make_unique<Attendance>(coordinator_->state(), coordinator_->seams(), *this);
    coordinator_->Connected(shared_from_this());
  }
  if (!attended()) return;
  coordinator_->scheduler().Post([self = shared_from_this(), message] {
    if (!self->attended()) return;
    if (const Status taken = self->attendance_->Take(message); !taken.ok()) self->Close();
  });
}

void SimConnection::AgentEnds() {
  agent_there_ = false;
  world_.links.Send(agent_.host(), 0, [self = shared_from_this()] {
    if (self->attended()) self->EndAttendance();
  });
}

void SimConnection::EndAttendance() {
  coordinator_->scheduler().Post([self = shared_from_this()] {
    if (!self->attended()) return;
    self->attendance_->Ended();
    self->attendance_.reset();
  });
}

void SimConnection::Send(const proto::ToAgent& command) {
  world_.links.Send(0, agent_.host(), [self = shared_from_this(), command] {
    if (!self->agent_there_) return;
    self->agent_.scheduler().Post([self, command] {
      if (self->agent_there_) self->agent_.agent().OnCommand(command);
    });
  });
}

void SimConnection::Close() {
  EndAttendance();
  TellAgentOfTheEnd();
}

void SimConnection::CoordinatorDied() {
  if (attendance_) TellAgentOfTheEnd();
  attendance_.reset();
}

void SimConnection::TellAgentOfTheEnd() {
  world_.links.Send(0, agent_.host(), [self = shared_from_this()] {
    if (!self->agent_there_) return;
    self->agent_there_ = false;
    self->agent_.scheduler().Post([self] { self->agent_.Ended(self.get()); });
  });
}

}  // namespace troupe::testing
