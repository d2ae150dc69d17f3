// A client of the simulated coordinator: submits a job, follows it, and looks at what it is told.
// Beside the coordinator: no delay, and it knows at once when that one dies.
#pragma once

#include <cstdint>
#include <functional>
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

  // Called when a step of the job, not of its reference run, is told.
  void OnStep(std::function<void(int64_t step)> on_step) { on_step_ = std::move(on_step); }
  // False: there is nobody to say it to, or nothing to say it of.
  bool Cancel(bool checkpoint, bool kill) {
    if (job_ == 0 || over()) return false;
    proto::CancelRequest request;
    request.set_job(job_);
    request.set_checkpoint(checkpoint);
    request.set_kill(kill);
    coordinator_->Cancel(request);
    return true;
  }

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
  // Of a job that goes on from step `from` and has `num_steps`.
  SeenEnd end(int64_t from, int64_t num_steps) const {
    SeenEnd end{.job = job_, .lost = lost(), .last_step = from, .num_steps = num_steps};
    if (last_step_) end.last_step = *last_step_;
    end.succeeded = result_ && result_->exit_code() == 0;
    end.reason = refusal_.value_or(result_ ? result_->reason() : "");
    if (result_ && result_->state() == proto::JOB_STATE_CANCELLED) end.reason = "cancelled";
    return end;
  }

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
        last_step_ = message.metrics().step();
        if (on_step_) on_step_(*last_step_);
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
  std::function<void(int64_t)> on_step_{};
  SimCoordinator* coordinator_ = nullptr;  // that has the job; dead, it is there all the same
  uint64_t job_ = 0;
  std::optional<proto::JobResult> result_{};
  std::optional<std::string> refusal_{};
  std::optional<int64_t> last_step_{};
};

}  // namespace troupe::testing
