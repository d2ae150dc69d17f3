// How a job ends: what kills its ranks, what follows when all have gone, and the one result. The
// last part of JobLife.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "actors/plan/job_plan.h"
#include "actors/plan/job_shape.h"
#include "coordinator/job_life.h"
#include "runtime/base/talk.h"

namespace troupe {

void JobLife::Fail(ErrorCode code, std::string sentence) {
  if (failure_ || ended_) return;  // J1
  failure_ = Error{code, std::move(sentence)};
  KillRanks();
}

void JobLife::KillRanks() {
  killing_ = true;
  ForgetSilence();
  if (kill_timer_.generation == 0) {
    kill_timer_ = seams_.scheduler.After(kKillMs, [this] { GiveUpKilling(); });
  }
  std::set<HostId> hosts;
  for (const RankState& rank : ranks_) {
    if (!rank.exited) hosts.insert(rank.place.host);
  }
  for (const HostId id : hosts) {
    AgentPort* port = PortOf(id);
    if (port == nullptr) continue;
    proto::ToAgent command;
    command.mutable_kill()->set_job(id_);
    command.mutable_kill()->set_epoch(epoch_);
    port->Send(command);
  }
}

void JobLife::Cancel(const StopOrder& order) {
  if (ended_) return;
  const bool stops_already = stop_.has_value();
  if (!stops_already || order.cause.empty()) stop_ = order;
  if (epoch_ == 0) {  // no rank was started
    for (RankState& rank : ranks_) rank.exited = true;
    return EndStopped();
  }
  if (order.kill || reference_run_ || !began_) return KillRanks();
  if (stops_already) return;
  SetState(proto::JOB_STATE_DRAINING);
  proto::ToRank command;
  command.mutable_cancel()->set_checkpoint(order.checkpoint);
  Tell(0, command);
  AwaitCleanStop();
}

void JobLife::AwaitCleanStop() {
  seams_.scheduler.Cancel(cancel_timer_);
  cancel_timer_ = seams_.scheduler.After(kCancelMs, [this] {
    if (!ended_) KillRanks();
  });
}

void JobLife::EndStopped() {
  const StopOrder why = stop_.value_or(StopOrder{});
  if (why.preempted) return End(proto::JOB_STATE_PREEMPTED, kPreemptedExitCode, why.cause);
  End(proto::JOB_STATE_CANCELLED, ExitCode(ErrorCode::kCancelled), why.cause);
}

void JobLife::FreeSlots() {
  for (const RankState& rank : ranks_) {
    const auto host = state_.hosts.find(rank.place.host);
    if (rank.exited && host != state_.hosts.end()) {
      host->second.used_slots.erase(rank.place.slot);
    }
  }
}

// J2: a rank that outlived its job has gone at last.
void JobLife::FreeSlotOf(const proto::RankExited& exited) {
  if (exited.epoch() != epoch_ || exited.rank() < 0 ||
      exited.rank() >= static_cast<int32_t>(ranks_.size())) {
    return;
  }
  RankState& rank = ranks_[static_cast<size_t>(exited.rank())];
  if (std::exchange(rank.exited, true)) return;
  const auto host = state_.hosts.find(rank.place.host);
  if (host != state_.hosts.end()) host->second.used_slots.erase(rank.place.slot);
  seams_.scheduler.Post([&state = state_] { StartWhatFits(state); });
}

void JobLife::PhaseOver() {
  CancelTimers();
  if (!failure_ && !killing_) failure_ = suspicion_;  // no other cause can come any more
  const bool moves = ranks_[0].finished && ranks_[0].finished->stage_layers_size() > 0;
  if (moves && !failure_ && !stop_) return MoveLayers(proto::Finished(*ranks_[0].finished));
  RunTrace& trace = reference_run_ ? reference_trace_ : main_trace_;
  for (const RankState& rank : ranks_) {
    if (!rank.finished) continue;
    for (const proto::ParameterDigest& digest : rank.finished->parameter_digests()) {
      trace.parameter_digests[digest.parameter()] += digest.sum();
    }
  }
  if (failure_) {
    return End(proto::JOB_STATE_FAILED, ExitCode(failure_->code), failure_->message);
  }
  const bool cancelled = ranks_[0].finished && ranks_[0].finished->cancelled();
  if (stop_ || (cancelled && !reference_run_)) return EndStopped();
  const bool compares = Trains(request_.spec()) && request_.spec().eval().has_check_against();
  if (!reference_run_ && compares) {
    return CheckAgainstSingleWorker();
  }
  if (!reference_run_) return End(proto::JOB_STATE_SUCCEEDED, 0, "");
  const Parity parity = Compare(main_trace_, reference_trace_, ToleranceOf(request_.spec()));
  result_.set_parity(parity.sentence);
  if (parity.agrees) return End(proto::JOB_STATE_SUCCEEDED, 0, "");
  End(proto::JOB_STATE_FAILED, ExitCode(ErrorCode::kGateFailed),
      fmt::format("eval.check_against: the run differs from one worker: {}", parity.sentence));
}

// The same ranks start anew with other layers each, from the checkpoint that they just wrote.
void JobLife::MoveLayers(const proto::Finished& finished) {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (PortOf(ranks_[rank].place.host) != nullptr) continue;
    return End(
        proto::JOB_STATE_FAILED, ExitCode(ErrorCode::kPeerDown),
        fmt::format("the host of rank {} was lost while layers moved: go on with --resume", rank));
  }
  decided_.Move(request_.spec(), {finished.stage_layers().begin(), finished.stage_layers().end()});
  resume_from_ = finished.checkpoint();
  for (RankState& rank : ranks_) {
    rank = RankState{.place = rank.place, .host_name = rank.host_name};
  }
  SetState(proto::JOB_STATE_STARTING);
  Spawn(request_.spec());
}

void JobLife::CheckAgainstSingleWorker() {
  const Placement place = ranks_[0].place;
  for (size_t rank = 1; rank < ranks_.size(); ++rank) {
    const auto host = state_.hosts.find(ranks_[rank].place.host);
    if (host != state_.hosts.end()) host->second.used_slots.erase(ranks_[rank].place.slot);
  }
  seams_.scheduler.Post([&state = state_] { StartWhatFits(state); });
  if (PortOf(place.host) == nullptr) {
    return End(proto::JOB_STATE_FAILED, ExitCode(ErrorCode::kPeerDown),
               "the host of rank 0 was lost before the run on one worker");
  }
  ranks_.assign(1, RankState{.place = place, .host_name = HostName(place.host)});
  reference_run_ = true;
  proto::JobSpec single = SingleWorkerSpec(request_.spec());
  single.clear_eval();
  single.mutable_checkpoint()->set_every(0);
  single.mutable_checkpoint()->set_save_hf(false);
  SetState(proto::JOB_STATE_DRAINING);
  Spawn(single);
}

void JobLife::End(proto::JobState state, int exit_code, std::string reason) {
  ended_ = true;
  FreeSlots();
  AnswerWaits();
  result_.set_state(state);
  result_.set_exit_code(exit_code);
  result_.set_reason(std::move(reason));
  // Not from within: StartWhatFits walks the jobs, this one among them.
  seams_.scheduler.Post([&state = state_] { StartWhatFits(state); });
  if (!recorder_) return TellResult(result_);
  SetState(proto::JOB_STATE_DRAINING);
  record_timer_ = seams_.scheduler.After(kRecordMs, [this] {
    Talk(
        "job {}: {} is not written whole after {} ms, its result is told without: is the disk "
        "slow?\n",
        id_, request_.run_directory(), kRecordMs);
    TellResult(result_);
  });
  recorder_->Ended(result_,
                   [this, alive = std::weak_ptr<bool>(alive_)](const proto::JobResult& recorded) {
                     if (alive.expired()) return;
                     seams_.scheduler.Cancel(record_timer_);
                     // Not from within its own call.
                     seams_.scheduler.Post([recorder = std::exchange(recorder_, nullptr)] {});
                     TellResult(recorded);
                   });
}

void JobLife::TellResult(const proto::JobResult& result) {
  if (history_.ended()) return;
  result_ = result;
  summary_.set_ended_wall_us(seams_.scheduler.clock().WallUs());
  summary_.set_exit_code(result.exit_code());
  summary_.set_reason(result.reason());
  summary_.set_state(result.state());
  proto::JobEvent now;
  *now.mutable_state() = summary_;
  Emit(std::move(now));
  proto::JobEvent event;
  *event.mutable_result() = result;
  Emit(std::move(event));
  history_.End();
  Forget(state_, id_);
}

}  // namespace troupe
