// A coordinator without gRPC and processes: the real state, ops and job lives on a clock that a
// test moves, with agents and followers that only record.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/job_life.h"
#include "coordinator/ops/attend.h"
#include "coordinator/ops/cancel.h"
#include "coordinator/ops/get_status.h"
#include "coordinator/ops/list_jobs.h"
#include "coordinator/ops/stop.h"
#include "coordinator/ops/submit.h"
#include "runtime/sim/virtual_clock.h"
#include "tests/support/temporary_folder.h"

namespace troupe::testing {

struct RecordingAgent : AgentPort {
  void Send(const proto::ToAgent& command) override { commands.push_back(command); }
  void Close() override { closed = true; }

  std::vector<proto::ToAgent> commands{};
  bool closed = false;
};

struct RecordingFollower : FollowerPort {
  void Send(const SharedEvent& event, int64_t) override { events.push_back(*event); }
  void Finish() override { finished = true; }

  std::vector<proto::JobState> States() const {
    std::vector<proto::JobState> states;
    for (const auto& event : events) {
      if (event.has_state() && (states.empty() || states.back() != event.state().state())) {
        states.push_back(event.state().state());
      }
    }
    return states;
  }
  const proto::JobResult* Result() const {
    for (const auto& event : events) {
      if (event.has_result()) return &event.result();
    }
    return nullptr;
  }

  std::vector<proto::JobEvent> events{};
  bool finished = false;
};

// A small valid job of `workers` pipeline stages, every key set.
inline proto::JobSpec SmallJob(int workers) {
  proto::JobSpec spec;
  spec.set_spec_version(1);
  spec.set_kind("pretrain");
  spec.set_name("small");
  auto* model = spec.mutable_model();
  model->set_hidden_size(32);
  model->set_intermediate_size(64);
  model->set_num_hidden_layers(8);
  model->set_num_attention_heads(4);
  model->set_num_key_value_heads(2);
  model->set_head_dim(8);
  model->set_vocab_size(256);
  model->set_max_position_embeddings(64);
  model->set_rms_norm_eps(1e-5);
  model->set_rope_theta(10000);
  model->set_tie_word_embeddings(false);
  model->set_initializer_range(0.02);
  spec.mutable_data()->set_train("/text.txt");
  auto* axes = spec.mutable_parallelism();
  axes->set_dp(1);
  axes->set_cp(1);
  axes->set_tp(1);
  axes->set_pp(workers);
  axes->set_ep(1);
  axes->set_schedule("1f1b");
  spec.mutable_batch()->set_micro_batch_size(2);
  spec.mutable_batch()->set_global_batch_size(8);
  spec.mutable_batch()->set_seq_len(32);
  spec.mutable_batch()->set_gradient_groups(1);
  auto* optimizer = spec.mutable_optimizer();
  optimizer->set_name("adamw");
  optimizer->set_lr(1e-3);
  optimizer->add_betas(0.9);
  optimizer->add_betas(0.95);
  optimizer->set_eps(1e-8);
  optimizer->set_weight_decay(0.1);
  optimizer->set_grad_clip(1);
  spec.mutable_lr_scheduler()->set_name("constant");
  spec.mutable_train()->set_steps(20);
  spec.mutable_train()->set_dtype("float32");
  spec.mutable_train()->set_seed(1);
  spec.mutable_resources()->set_workers(workers);
  spec.mutable_resources()->set_threads_per_worker(1);
  return spec;
}

class Harness {
 public:
  Harness() { state.options.state_directory = folder.path(); }

  HostId Join(const std::string& name, int slots) {
    proto::Join join;
    join.set_host(name);
    join.set_slots(slots);
    agents_.push_back(std::make_unique<RecordingAgent>());
    auto joined = JoinHost(state, seams, join, agents_.back().get());
    CHECK(joined.ok(), "{}", joined.error().message);
    StartWhatFits(state);
    return joined->host;
  }
  RecordingAgent& AgentOf(HostId host) { return *agents_[static_cast<size_t>(host - 1)]; }

  Result<proto::SubmitReply> TrySubmit(proto::JobSpec spec, const std::string& id = "") {
    proto::SubmitRequest request;
    request.set_submission_id(id);
    *request.mutable_spec() = std::move(spec);
    return TrySubmit(std::move(request));
  }
  Result<proto::SubmitReply> TrySubmit(proto::SubmitRequest request) {
    Result<proto::SubmitReply> reply = MakeError(ErrorCode::kFailed, "not answered");
    Submit(state, seams, new_recorder, std::move(request),
           [&reply](Result<proto::SubmitReply> answered) { reply = std::move(answered); });
    scheduler.RunUntilIdle();
    return reply;
  }
  // Submits and follows.
  JobLife& Submitted(proto::JobSpec spec) {
    auto reply = TrySubmit(std::move(spec));
    CHECK(reply.ok(), "{}", reply.error().message);
    JobLife& job = *state.jobs.at(reply->job());
    followers_.push_back(std::make_unique<RecordingFollower>());
    job.Follow(followers_.back().get());
    return job;
  }
  RecordingFollower& FollowerOf(const JobLife& job) {
    return *followers_[static_cast<size_t>(job.id() - 1)];
  }

  void Says(JobLife& job, int32_t rank, const proto::FromRank& message, uint64_t epoch = 1) {
    job.RankSaid(epoch, rank, message);
  }
  void Exits(JobLife& job, int32_t rank, int exit_code, int signal = 0, uint64_t epoch = 1) {
    proto::RankExited exited;
    exited.set_job(job.id());
    exited.set_epoch(epoch);
    exited.set_rank(rank);
    exited.set_exit_code(exit_code);
    exited.set_signal(signal);
    job.RankExited(exited);
    scheduler.RunUntilIdle();
  }
  void Hello(JobLife& job, int32_t rank, const std::string& build = "b", uint64_t epoch = 1) {
    proto::FromRank message;
    message.mutable_hello()->set_pid(4711 + rank);
    message.mutable_hello()->set_transport_address(std::to_string(rank));
    message.mutable_hello()->set_build(build);
    Says(job, rank, message, epoch);
    scheduler.RunUntilIdle();  // what the planner decides
  }
  void Ready(JobLife& job, int32_t rank, uint64_t epoch = 1) {
    proto::FromRank message;
    message.mutable_ready();
    Says(job, rank, message, epoch);
  }
  // Brings a job of `workers` ranks to its first step.
  void Begins(JobLife& job, int workers, uint64_t epoch = 1) {
    for (int r = 0; r < workers; ++r) Hello(job, r, "b", epoch);
    for (int r = 0; r < workers; ++r) Ready(job, r, epoch);
  }
  void Step(JobLife& job, int64_t step, double loss, uint64_t epoch = 1) {
    proto::FromRank message;
    message.mutable_metrics()->set_step(step);
    message.mutable_metrics()->set_loss(loss);
    message.mutable_metrics()->set_grad_norm(1);
    Says(job, 0, message, epoch);
  }
  // digests: parameter → digest.
  void Finishes(JobLife& job, int32_t rank, const std::map<int32_t, uint64_t>& digests = {},
                bool cancelled = false, uint64_t epoch = 1) {
    proto::FromRank message;
    for (const auto& [parameter, sum] : digests) {
      proto::ParameterDigest& digest = *message.mutable_finished()->add_parameter_digests();
      digest.set_parameter(parameter);
      digest.set_sum(sum);
    }
    message.mutable_finished()->set_cancelled(cancelled);
    Says(job, rank, message, epoch);
  }
  void FinishesWith(JobLife& job, int32_t rank, ErrorCode code, const std::string& error) {
    proto::FromRank message;
    message.mutable_finished()->set_error_code(static_cast<int32_t>(code) + 1);
    message.mutable_finished()->set_error(error);
    Says(job, rank, message);
  }
  void AdvanceMs(int64_t ms) {
    clock.AdvanceMs(ms);
    scheduler.RunUntilIdle();
  }
  // How many orders of a kind the host has got.
  int Orders(HostId host, proto::ToRank::MessageCase kind) {
    int count = 0;
    for (const auto& command : AgentOf(host).commands) {
      count += command.has_tell() && command.tell().message().message_case() == kind;
    }
    return count;
  }
  int Commands(HostId host, proto::ToAgent::MessageCase kind) {
    int count = 0;
    for (const auto& command : AgentOf(host).commands) count += command.message_case() == kind;
    return count;
  }

  TemporaryFolder folder;
  VirtualClock clock;
  Scheduler scheduler{{.clock = &clock}};
  InlineStream stream{scheduler};
  Seams seams{scheduler, SystemFiles(), stream, stream};
  State state;
  NewRecorder new_recorder{};  // of the jobs that are submitted from now on

 private:
  std::vector<std::unique_ptr<RecordingAgent>> agents_{};
  std::vector<std::unique_ptr<RecordingFollower>> followers_{};
};

}  // namespace troupe::testing
