#include "coordinator/job_life.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "actors/plan/job_orders.h"
#include "actors/plan/job_plan.h"
#include "coordinator/rank_end.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

// What a rank says only where its job gets on.
bool IsAdvance(const proto::FromRank& message) {
  return message.has_progress() || message.has_metrics() || message.has_eval() ||
         message.has_checkpoint();
}

RunTrace::Step TraceOf(const proto::StepMetrics& metrics) {
  RunTrace::Step step{.step = metrics.step()};
  if (metrics.has_loss()) step.loss = metrics.loss();
  if (metrics.has_grad_norm()) step.grad_norm = metrics.grad_norm();
  return step;
}

}  // namespace

JobLife::JobLife(State& state, Seams seams, uint64_t id, proto::SubmitRequest request,
                 std::shared_ptr<JobRecorder> recorder)
    : state_(state),
      seams_(seams),
      id_(id),
      request_(std::move(request)),
      recorder_(std::move(recorder)),
      history_(state.event_bytes),
      resume_from_(request_.resume_from()) {
  result_.set_checkpoint(request_.resume_from());
  const proto::JobSpec& spec = request_.spec();
  summary_.set_job(id_);
  summary_.set_name(spec.name());
  summary_.set_steps(spec.train().stop_after() > 0 ? spec.train().stop_after()
                                                   : spec.train().steps());
  if (auto mesh = Mesh::FromSpec(spec.parallelism()); mesh.ok()) {
    summary_.set_layout(mesh->Name());
  }
  summary_.set_workers(spec.resources().workers());
  summary_.set_submitted_wall_us(seams_.scheduler.clock().WallUs());
  summary_.set_run_directory(request_.run_directory());
  result_.set_run_directory(request_.run_directory());
  // The recorder has written them; a queue of jobs need not hold them.
  request_.clear_job_file();
  request_.clear_effective_file();
  SetState(proto::JOB_STATE_QUEUED);
}

JobLife::~JobLife() {
  judging_ = false;
  AnswerWaits();
  seams_.scheduler.Cancel(waits_timer_);
  CancelTimers();
  seams_.scheduler.Cancel(suspicion_timer_);
  seams_.scheduler.Cancel(folder_timer_);
  seams_.scheduler.Cancel(record_timer_);
}

// Those of a phase: the main run, its restarts, the run on one worker.
void JobLife::CancelTimers() {
  for (TimerId timer : {drain_timer_, hello_timer_, cancel_timer_, kill_timer_, hang_timer_}) {
    seams_.scheduler.Cancel(timer);
  }
  kill_timer_ = {};
  hang_timer_ = {};
  judging_ = false;
  ForgetSilence();
}

bool JobLife::RunsOn(HostId host) const {
  return std::ranges::any_of(
      ranks_, [host](const RankState& rank) { return rank.place.host == host && !rank.exited; });
}

HostId JobLife::HostOf(int32_t rank) const {
  if (rank < 0 || rank >= static_cast<int32_t>(ranks_.size())) return 0;
  return ranks_[static_cast<size_t>(rank)].place.host;
}

bool JobLife::AllExited() const {
  return std::ranges::all_of(ranks_, [](const RankState& rank) { return rank.exited; });
}

// ---- telling ---------------------------------------------------------------------------------

void JobLife::Emit(proto::JobEvent event, bool keep) { history_.Tell(std::move(event), keep); }

void JobLife::SetState(proto::JobState state) {
  summary_.set_state(state);
  if (recorder_) recorder_->StateChanged(summary_);
  proto::JobEvent event;
  *event.mutable_state() = summary_;
  Emit(std::move(event));
}

void JobLife::Warn(const std::string& sentence) { Happened(0, sentence); }

FollowerId JobLife::Follow(FollowerPort* port) { return history_.Follow(port, summary_); }
void JobLife::Unfollow(FollowerId follower) { history_.Unfollow(follower); }
void JobLife::ShrinkHistory() {
  history_.Shrink();
  request_.Clear();  // what is left of it is in the summary
}

void JobLife::StayQueued(const std::string& why) {
  if (summary_.reason() == why) return;
  summary_.set_reason(why);
  SetState(proto::JOB_STATE_QUEUED);
}

AgentPort* JobLife::PortOf(HostId id) const {
  const auto host = state_.hosts.find(id);
  return host == state_.hosts.end() ? nullptr : host->second.port;
}

std::string JobLife::HostName(HostId id) const {
  const auto host = state_.hosts.find(id);
  return host == state_.hosts.end() ? "" : host->second.name;
}

void JobLife::Tell(int32_t rank, const proto::ToRank& order) {
  const RankState& to = ranks_[static_cast<size_t>(rank)];
  AgentPort* port = PortOf(to.place.host);
  if (to.exited || port == nullptr) return;
  proto::ToAgent command;
  auto* tell = command.mutable_tell();
  tell->set_job(id_);
  tell->set_epoch(epoch_);
  tell->set_rank(rank);
  *tell->mutable_message() = order;
  port->Send(command);
}

void JobLife::TellAll(const proto::ToRank& order) {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) Tell(static_cast<int32_t>(rank), order);
}

// ---- running ---------------------------------------------------------------------------------

bool JobLife::Heeds(uint64_t epoch, int32_t rank) const {
  return !ended() && epoch == epoch_ && rank >= 0 && rank < static_cast<int32_t>(ranks_.size()) &&
         !ranks_[static_cast<size_t>(rank)].exited;
}

void JobLife::RankSaid(uint64_t epoch, int32_t rank, const proto::FromRank& message) {
  if (!Heeds(epoch, rank)) return;
  if (recorder_) recorder_->RankSaid(rank, reference_run_, message);
  if (stop_ && !killing_ && IsAdvance(message)) AwaitCleanStop();
  if (IsAdvance(message) || message.has_ready()) GotOn();
  RunTrace& trace = reference_run_ ? reference_trace_ : main_trace_;
  switch (message.message_case()) {
    case proto::FromRank::kHello:
      OnHello(rank, message.hello());
      break;
    case proto::FromRank::kReady:
      OnReady(rank, message.ready());
      break;
    case proto::FromRank::kProgress:
      ranks_[static_cast<size_t>(rank)].progress = message.progress();
      return;
    case proto::FromRank::kSpans:
    case proto::FromRank::kStepMemory:
      return;
    case proto::FromRank::kMetrics:
      if (request_.spec().eval().has_check_against()) {
        trace.steps.push_back(TraceOf(message.metrics()));
      }
      if (!reference_run_) {
        summary_.set_step(message.metrics().step());
        if (message.metrics().has_loss()) summary_.set_loss(message.metrics().loss());
        summary_.set_tokens_per_second(message.metrics().tokens_per_second());
      }
      break;
    case proto::FromRank::kCheckpoint:
      result_.set_checkpoint(message.checkpoint().directory());
      result_.set_checkpoint_step(message.checkpoint().step());
      break;
    case proto::FromRank::kEval:
      if (!reference_run_ && message.eval().has_val_loss()) {
        result_.set_val_loss(message.eval().val_loss());
      }
      break;
    case proto::FromRank::kSampled:
      if (!reference_run_) *result_.mutable_sample() = message.sampled();
      break;
    case proto::FromRank::kWaits:
      return OnWaits(rank, message.waits());
    case proto::FromRank::kFinished:
      OnFinished(rank, message.finished());
      break;
    default:
      break;
  }
  proto::JobEvent event;
  event.mutable_rank()->set_rank(rank);
  event.mutable_rank()->set_reference_run(reference_run_);
  *event.mutable_rank()->mutable_message() = message;
  // Memory is told several times a second: those who follow late see it from then on.
  Emit(std::move(event), /*keep=*/message.message_case() != proto::FromRank::kMemory);
}

void JobLife::RankLogged(const proto::RankLog& log) {
  if (Heeds(log.epoch(), log.rank()) && recorder_) {
    recorder_->RankLogged(log.rank(), reference_run_, log.lines());
  }
}

// A file that is missing once a job has begun was there before: no fault of its spec.
ErrorCode JobLife::InMidRun(ErrorCode code) const {
  return began_ && code == ErrorCode::kNotFound ? ErrorCode::kIo : code;
}

void JobLife::OnFinished(int32_t rank, const proto::Finished& finished) {
  auto& last_word = ranks_[static_cast<size_t>(rank)].finished;
  if (last_word) return;
  last_word = finished;
  if (finished.error_code() != 0) {
    if (killing_) return;  // what a rank suffers from the others' end

    const ErrorCode code = InMidRun(static_cast<ErrorCode>(finished.error_code() - 1));
    // A rank that lost its peer is a consequence: wait for the cause.
    if (code == ErrorCode::kPeerDown || code == ErrorCode::kUnavailable ||
        finished.has_lost_peer()) {
      return SuspectPeer(rank, finished);
    }
    return Fail(code, fmt::format("{}: {}", RankInWords(rank), finished.error()));
  }
  if (killing_) return;
  const auto said = [](const RankState& r) { return r.finished.has_value(); };
  if (std::ranges::all_of(ranks_, said)) {
    proto::ToRank order;
    order.mutable_leave();
    TellAll(order);
  }
  if (rank != 0) return;
  if (!finished.checkpoint().empty() && finished.checkpoint() != result_.checkpoint()) {
    result_.set_checkpoint(finished.checkpoint());
    result_.set_checkpoint_step(finished.last_step());
  }
  if (!reference_run_) SetState(proto::JOB_STATE_DRAINING);
  proto::ToRank order;
  order.mutable_shut_down();
  TellAll(order);
  drain_timer_ = seams_.scheduler.After(kDrainMs, [this] {
    Fail(ErrorCode::kDeadlineExceeded,
         fmt::format("after the last step not every rank ended within {} ms", kDrainMs));
  });
}

void JobLife::RankExited(const proto::RankExited& exited) {
  if (ended()) return FreeSlotOf(exited);
  if (!Heeds(exited.epoch(), exited.rank())) return;
  RankState& rank = ranks_[static_cast<size_t>(exited.rank())];
  rank.exited = true;
  seams_.scheduler.Cancel(rank.silence_timer);
  const bool as_told = killing_ || (rank.finished && exited.signal() == 0);
  if (!as_told) Fail(ErrorCode::kPeerDown, HowItEnded(exited));
  if (AllExited()) PhaseOver();
}

std::string JobLife::HowItEnded(const proto::RankExited& exited) const {
  const auto [how, why] = EndInWords(exited);
  return fmt::format("{} {} {}{}{}", RankInWords(exited.rank()), how, WhatItDid(exited.rank()),
                     why.empty() ? "" : ": ", why);
}

void JobLife::HostLost(HostId host, const std::string& why) {
  if (ended_) return;
  bool touched = false;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (ranks_[rank].place.host != host || ranks_[rank].exited) continue;
    if (!std::exchange(touched, true)) {
      Fail(ErrorCode::kPeerDown, fmt::format("{} was lost with its host: {}",
                                             RankInWords(static_cast<int32_t>(rank)), why));
    }
    ranks_[rank].exited = true;
  }
  if (touched && AllExited()) PhaseOver();
}

std::string JobLife::RankInWords(int32_t rank) const {
  const RankState& r = ranks_[static_cast<size_t>(rank)];
  const std::string pid = r.hello ? fmt::format(", pid {}", r.hello->pid()) : "";
  return fmt::format("{}rank {} (host {}{})", reference_run_ ? "reference run's " : "", rank,
                     r.host_name, pid);
}

}  // namespace troupe
