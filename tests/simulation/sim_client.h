// A client of the simulated coordinator: submits a job, follows it, and looks at what it is told.
// Beside the coordinator: no delay, and it knows at once when that one dies.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "tests/simulation/sim_cluster.h"

namespace troupe::testing {

class SimClient : public FollowerPort {
 public:
  // `expected_loss`: of every step.
  SimClient(SimCluster& cluster, double expected_loss)
      : cluster_(cluster), expected_loss_(expected_loss) {}

  void Submit(proto::SubmitRequest request) {
    coordinator_ = cluster_.coordinator();
    coordinator_->Submit(std::move(request), [this](Result<proto::SubmitReply> reply) {
      if (!reply.ok()) {
        refusal_ = reply.error().message;
        cluster_.world().Log("the job is refused: {}", *refusal_);
        return;
      }
      job_ = reply->job();
      cluster_.world().Log("the job is number {}", job_);
      coordinator_->Find(job_)->Follow(this);
    });
  }
  // Its end is known, or nobody is there who could tell it.
  bool over() const { return result_ || refusal_ || lost(); }
  bool lost() const { return !result_ && !refusal_ && !coordinator_->alive(); }

  uint64_t job() const { return job_; }
  const std::optional<proto::JobResult>& result() const { return result_; }
  const std::optional<std::string>& refusal() const { return refusal_; }
  std::optional<int64_t> first_step() const { return first_step_; }
  int64_t last_step() const { return last_step_; }

  void Send(const SharedEvent& event, int64_t) override {
    SimWorld& world = cluster_.world();
    if (event->has_state()) {
      world.Log("job {} is {} {}", job_, proto::JobState_Name(event->state().state()),
                event->state().reason());
    } else if (event->has_result()) {
      result_ = event->result();
      world.Log("job {} ends with {}: {}", job_, result_->exit_code(), result_->reason());
    } else if (event->has_rank()) {
      Hear(event->rank());
    }
  }
  void Finish() override {}

 private:
  void Hear(const proto::RankMessage& said) {
    SimWorld& world = cluster_.world();
    const proto::FromRank& message = said.message();
    switch (message.message_case()) {
      case proto::FromRank::kMetrics:
        if (said.reference_run()) return;
        world.Log("step {}", message.metrics().step());
        world.invariants.StepTold(job_, /*epoch=*/1, message.metrics().step(),
                                  message.metrics().loss(), expected_loss_);
        if (!first_step_) first_step_ = message.metrics().step();
        last_step_ = message.metrics().step();
        return;
      case proto::FromRank::kHappening:
        return world.Log("rank {}: {}", said.rank(), message.happening().text());
      case proto::FromRank::kCheckpoint:
        return world.Log("checkpoint {}", message.checkpoint().directory());
      case proto::FromRank::kFinished:
        return world.Log("rank {} has finished: {}", said.rank(), message.finished().error());
      case proto::FromRank::kReady:
        return world.Log("rank {} is ready", said.rank());
      default:
        return;
    }
  }

  SimCluster& cluster_;
  const double expected_loss_;
  SimCoordinator* coordinator_ = nullptr;  // that has the job; dead, it is there all the same
  uint64_t job_ = 0;
  std::optional<proto::JobResult> result_{};
  std::optional<std::string> refusal_{};
  std::optional<int64_t> first_step_{};
  int64_t last_step_ = 0;
};

}  // namespace troupe::testing
