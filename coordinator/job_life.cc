#include "coordinator/job_life.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <utility>

#include "actors/plan/job_orders.h"
#include "actors/plan/job_plan.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

std::string SignalName(int signal) {
  const char* abbreviation = ::sigabbrev_np(signal);
  return abbreviation == nullptr ? fmt::format("signal {}", signal)
                                 : fmt::format("signal {} (SIG{})", signal, abbreviation);
}

// What a rank says only where its job gets on.
bool IsAdvance(const proto::FromRank& message) {
  return message.has_progress() || message.has_metrics() || message.has_eval() ||
         message.has_checkpoint();
}

bool IsCancelled(const proto::Finished& finished) { return finished.cancelled(); }

}  // namespace

JobLife::JobLife(State& state, Seams seams, uint64_t id, proto::SubmitRequest request,
                 std::unique_ptr<JobRecorder> recorder)
    : state_(state),
      seams_(seams),
      id_(id),
      request_(std::move(request)),
      recorder_(std::move(recorder)),
      resume_from_(request_.resume_from()) {
  const proto::JobSpec& spec = request_.spec();
  summary_.set_job(id_);
  summary_.set_name(spec.name());
  summary_.set_steps(spec.train().stop_after() > 0 ? spec.train().stop_after()
                                                   : spec.train().steps());
  if (auto mesh = Mesh::FromSpec(spec.parallelism()); mesh.ok()) {
    summary_.set_layout(mesh->Name());
  }
  summary_.set_submitted_wall_us(seams_.scheduler.clock().WallUs());
  summary_.set_run_directory(request_.run_directory());
  SetState(proto::JOB_STATE_QUEUED);
}

JobLife::~JobLife() {
  seams_.scheduler.Cancel(suspicion_timer_);
  seams_.scheduler.Cancel(drain_timer_);
  seams_.scheduler.Cancel(hello_timer_);
  seams_.scheduler.Cancel(cancel_timer_);
  seams_.scheduler.Cancel(record_timer_);
}

bool JobLife::ended() const {
  return state() == proto::JOB_STATE_SUCCEEDED || state() == proto::JOB_STATE_FAILED ||
         state() == proto::JOB_STATE_CANCELLED;
}

bool JobLife::AllExited() const {
  return std::ranges::all_of(ranks_, [](const RankState& rank) { return rank.exited; });
}

// ---- telling ---------------------------------------------------------------------------------

void JobLife::Emit(proto::JobEvent event, bool keep) {
  for (const auto& [id, follower] : followers_) follower->Send(event);
  if (!keep) return;
  history_.push_back(std::move(event));
  if (history_.size() > kHistoryMax) history_.pop_front();
}

void JobLife::SetState(proto::JobState state) {
  summary_.set_state(state);
  if (recorder_) recorder_->StateChanged(summary_);
  proto::JobEvent event;
  *event.mutable_state() = summary_;
  Emit(std::move(event));
}

FollowerId JobLife::Follow(FollowerPort* port) {
  if (history_.size() == kHistoryMax) {  // the start is no longer known: at least where it stands
    proto::JobEvent event;
    *event.mutable_state() = summary_;
    port->Send(event);
  }
  for (const proto::JobEvent& event : history_) port->Send(event);
  if (result_told_) {
    port->Finish();
    return 0;
  }
  const FollowerId id = state_.next_follower++;
  followers_[id] = port;
  return id;
}

void JobLife::Unfollow(FollowerId follower) { followers_.erase(follower); }

void JobLife::StayQueued(const std::string& why) {
  if (summary_.reason() == why) return;
  summary_.set_reason(why);
  SetState(proto::JOB_STATE_QUEUED);
}

void JobLife::Tell(int32_t rank, const proto::ToRank& order) {
  const RankState& to = ranks_[static_cast<size_t>(rank)];
  const auto host = state_.hosts.find(to.place.host);
  if (to.exited || host == state_.hosts.end() || host->second.port == nullptr) return;
  proto::ToAgent command;
  auto* tell = command.mutable_tell();
  tell->set_job(id_);
  tell->set_epoch(epoch_);
  tell->set_rank(rank);
  *tell->mutable_message() = order;
  host->second.port->Send(command);
}

void JobLife::TellAll(const proto::ToRank& order) {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) Tell(static_cast<int32_t>(rank), order);
}

// ---- starting --------------------------------------------------------------------------------

void JobLife::Start(std::vector<Placement> places) {
  ranks_.assign(places.size(), {});
  std::vector<std::string> hosts;
  for (size_t rank = 0; rank < places.size(); ++rank) {
    ranks_[rank].place = places[rank];
    hosts.push_back(state_.hosts.at(places[rank].host).name);
  }
  if (recorder_) recorder_->Placed(hosts);
  summary_.clear_reason();
  SetState(proto::JOB_STATE_STARTING);
  Spawn(request_.spec());
}

void JobLife::Spawn(const proto::JobSpec& spec) {
  ++epoch_;
  began_ = false;
  killing_ = false;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    proto::ToAgent command;
    auto* spawn = command.mutable_spawn();
    spawn->set_job(id_);
    spawn->set_epoch(epoch_);
    spawn->set_rank(static_cast<int32_t>(rank));
    auto* start = spawn->mutable_start();
    start->set_job(id_);
    start->set_epoch(epoch_);
    start->set_rank(static_cast<int32_t>(rank));
    start->set_world_size(static_cast<int32_t>(ranks_.size()));
    *start->mutable_spec() = spec;
    start->set_run_directory(request_.run_directory());
    start->set_resume_from(reference_run_ ? ReferenceStart() : resume_from_);
    start->set_reference_run(reference_run_);
    state_.hosts.at(ranks_[rank].place.host).port->Send(command);
  }
  const int hello_ms = MeasuresCosts(spec) ? kMeasuredHelloMs : kHelloMs;
  hello_timer_ = seams_.scheduler.After(hello_ms, [this, hello_ms] {
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      if (ranks_[rank].hello) continue;
      return Fail(ErrorCode::kDeadlineExceeded,
                  fmt::format("{} did not say Hello within {} ms of its start",
                              RankInWords(static_cast<int32_t>(rank)), hello_ms));
    }
  });
}

// Where no step was left to run, there is nothing to compare but where all of them lead.
std::string JobLife::ReferenceStart() const {
  return main_trace_.steps.empty() ? "" : request_.resume_from();
}

void JobLife::OnHello(int32_t rank, const proto::Hello& hello) {
  ranks_[static_cast<size_t>(rank)].hello = hello;
  const auto said = [](const RankState& r) { return r.hello.has_value(); };
  if (!std::ranges::all_of(ranks_, said)) return;
  seams_.scheduler.Cancel(hello_timer_);
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (ranks_[r].hello->build() == ranks_[0].hello->build()) continue;
    return Fail(ErrorCode::kFailed,
                fmt::format("{} runs another build than {}: install the same binaries everywhere",
                            RankInWords(static_cast<int32_t>(r)), RankInWords(0)));
  }
  if (!reference_run_) {
    std::vector<proto::Hello> hellos;
    for (const RankState& rank : ranks_) hellos.push_back(*rank.hello);
    if (const Status decided = decided_.Decide(request_.spec(), hellos); !decided.ok()) {
      return Fail(decided.error().code, decided.error().message);
    }
    if (recorder_ && !decided_.orders().empty()) recorder_->Planned(decided_.orders());
  }
  IntroducePeers();
}

void JobLife::IntroducePeers() {
  proto::ToRank order;
  auto* peers = order.mutable_peers();
  for (size_t r = 0; r < ranks_.size(); ++r) {
    auto* peer = peers->add_peers();
    peer->set_rank(static_cast<int32_t>(r));
    peer->set_address(ranks_[r].hello->transport_address());
    peer->set_host(state_.hosts.at(ranks_[r].place.host).name);
  }
  if (!reference_run_) decided_.WriteTo(*peers);
  TellAll(order);
}

void JobLife::OnReady(int32_t rank) {
  ranks_[static_cast<size_t>(rank)].ready = true;
  if (began_ || killing_ || !std::ranges::all_of(ranks_, &RankState::ready)) return;
  began_ = true;
  proto::ToRank order;
  order.mutable_begin();
  Tell(0, order);
  if (!reference_run_ && !cancelling_) SetState(proto::JOB_STATE_RUNNING);
}

// ---- running ---------------------------------------------------------------------------------

void JobLife::RankSaid(uint64_t epoch, int32_t rank, const proto::FromRank& message) {
  if (epoch != epoch_ || rank < 0 || rank >= static_cast<int32_t>(ranks_.size())) return;  // J3
  if (recorder_) recorder_->RankSaid(rank, reference_run_, message);
  if (cancelling_ && !killing_ && IsAdvance(message)) AwaitCleanStop();
  RunTrace& trace = reference_run_ ? reference_trace_ : main_trace_;
  switch (message.message_case()) {
    case proto::FromRank::kHello:
      OnHello(rank, message.hello());
      break;
    case proto::FromRank::kReady:
      OnReady(rank);
      break;
    case proto::FromRank::kProgress:
      ranks_[static_cast<size_t>(rank)].progress = message.progress();
      return;
    case proto::FromRank::kSpans:
      return;
    case proto::FromRank::kMetrics:
      trace.steps.push_back(
          {message.metrics().step(), message.metrics().loss(), message.metrics().grad_norm()});
      if (!reference_run_) {
        summary_.set_step(message.metrics().step());
        summary_.set_loss(message.metrics().loss());
        summary_.set_tokens_per_second(message.metrics().tokens_per_second());
      }
      break;
    case proto::FromRank::kCheckpoint:
      checkpoint_ = message.checkpoint().directory();
      break;
    case proto::FromRank::kWaits:
      waits_.insert(waits_.end(), message.waits().edges().begin(), message.waits().edges().end());
      return;
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
  if (log.epoch() == epoch_ && recorder_) {
    recorder_->RankLogged(log.rank(), reference_run_, log.lines());
  }
}

void JobLife::AskWaits() {
  waits_.clear();
  proto::ToRank order;
  order.mutable_status();
  TellAll(order);
}

void JobLife::OnFinished(int32_t rank, const proto::Finished& finished) {
  ranks_[static_cast<size_t>(rank)].finished = finished;
  if (finished.error_code() != 0) {
    if (killing_) return;  // what a rank suffers from the others' end

    const auto code = static_cast<ErrorCode>(finished.error_code() - 1);
    const std::string sentence = fmt::format("{}: {}", RankInWords(rank), finished.error());
    // A rank that lost its peer is a consequence: wait for the cause.
    code == ErrorCode::kPeerDown ? FailSoon(code, sentence) : Fail(code, sentence);
    return;
  }
  if (killing_) return;
  const auto said = [](const RankState& r) { return r.finished.has_value(); };
  if (std::ranges::all_of(ranks_, said)) {
    proto::ToRank order;
    order.mutable_leave();
    TellAll(order);
  }
  if (rank != 0) return;
  if (!finished.checkpoint().empty()) checkpoint_ = finished.checkpoint();
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
  if (exited.epoch() != epoch_ || exited.rank() < 0 ||
      exited.rank() >= static_cast<int32_t>(ranks_.size())) {
    return;
  }
  RankState& rank = ranks_[static_cast<size_t>(exited.rank())];
  if (std::exchange(rank.exited, true)) return;
  const bool as_told = killing_ || (rank.finished && exited.signal() == 0);
  if (!as_told) Fail(ErrorCode::kPeerDown, HowItEnded(exited));
  if (AllExited()) PhaseOver();
}

std::string JobLife::HowItEnded(const proto::RankExited& exited) const {
  const RankState& rank = ranks_[static_cast<size_t>(exited.rank())];
  const std::string doing =
      rank.progress.action().empty()
          ? (rank.ready ? "before the first step" : "while starting")
          : fmt::format("at step {} during {}", rank.progress.step(), rank.progress.action());
  std::string how = fmt::format("exited with {}", exited.exit_code());
  if (exited.signal() != 0) how = fmt::format("was killed by {}", SignalName(exited.signal()));
  std::string why;
  if (exited.signal() != SIGKILL && exited.last_lines_size() > 0) {
    why = fmt::format(": {}", exited.last_lines(exited.last_lines_size() - 1));
  }
  if (!exited.cause().empty()) {
    how = "was killed by its host agent";
    why = fmt::format(": {}", exited.cause());
  }
  return fmt::format("{} {} {}{}", RankInWords(exited.rank()), how, doing, why);
}

void JobLife::HostLost(HostId host, const std::string& why) {
  if (ended()) return;
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
  const auto host = state_.hosts.find(r.place.host);
  const std::string where = host == state_.hosts.end() ? "" : "host " + host->second.name;
  const std::string pid = r.hello ? fmt::format(", pid {}", r.hello->pid()) : "";
  return fmt::format("{}rank {} ({}{})", reference_run_ ? "reference run's " : "", rank, where,
                     pid);
}

// ---- ending ----------------------------------------------------------------------------------

void JobLife::FailSoon(ErrorCode code, std::string sentence) {
  if (failure_ || suspicion_) return;
  suspicion_ = Error{code, std::move(sentence)};
  suspicion_timer_ = seams_.scheduler.After(kCauseWaitMs, [this] {
    if (suspicion_ && !failure_) Fail(suspicion_->code, suspicion_->message);
  });
}

void JobLife::Fail(ErrorCode code, std::string sentence) {
  if (failure_ || ended()) return;  // J1
  failure_ = Error{code, std::move(sentence)};
  KillRanks();
}

void JobLife::KillRanks() {
  killing_ = true;
  std::set<HostId> hosts;
  for (const RankState& rank : ranks_) {
    if (!rank.exited) hosts.insert(rank.place.host);
  }
  for (const HostId id : hosts) {
    const auto host = state_.hosts.find(id);
    if (host == state_.hosts.end() || host->second.port == nullptr) continue;
    proto::ToAgent command;
    command.mutable_kill()->set_job(id_);
    command.mutable_kill()->set_epoch(epoch_);
    host->second.port->Send(command);
  }
}

void JobLife::Cancel(bool checkpoint, bool kill) {
  if (ended()) return;
  cancelling_ = true;
  if (state() == proto::JOB_STATE_QUEUED) {
    return End(proto::JOB_STATE_CANCELLED, ExitCode(ErrorCode::kCancelled), "");
  }
  if (kill || reference_run_ || !began_) {
    KillRanks();
    return;
  }
  SetState(proto::JOB_STATE_DRAINING);
  proto::ToRank order;
  order.mutable_cancel()->set_checkpoint(checkpoint);
  Tell(0, order);
  AwaitCleanStop();
}

void JobLife::AwaitCleanStop() {
  seams_.scheduler.Cancel(cancel_timer_);
  cancel_timer_ = seams_.scheduler.After(kCancelMs, [this] {
    if (!ended()) KillRanks();
  });
}

void JobLife::FreeSlots() {
  for (const RankState& rank : ranks_) {
    const auto host = state_.hosts.find(rank.place.host);
    if (host != state_.hosts.end()) host->second.used_slots.erase(rank.place.slot);
  }
}

void JobLife::PhaseOver() {
  seams_.scheduler.Cancel(drain_timer_);
  seams_.scheduler.Cancel(hello_timer_);
  seams_.scheduler.Cancel(cancel_timer_);
  if (!failure_ && !killing_) failure_ = suspicion_;  // no other cause can come any more
  const bool moves = ranks_[0].finished && ranks_[0].finished->stage_layers_size() > 0;
  if (moves && !failure_ && !cancelling_) return MoveLayers(proto::Finished(*ranks_[0].finished));
  RunTrace& trace = reference_run_ ? reference_trace_ : main_trace_;
  for (const RankState& rank : ranks_) {
    if (!rank.finished) continue;
    trace.parameter_digests.insert(rank.finished->parameter_digests().begin(),
                                   rank.finished->parameter_digests().end());
  }
  if (failure_) {
    return End(proto::JOB_STATE_FAILED, ExitCode(failure_->code), failure_->message);
  }
  const bool cancelled = cancelling_ || (ranks_[0].finished && IsCancelled(*ranks_[0].finished));
  if (cancelled && !(reference_run_ && !cancelling_)) {
    return End(proto::JOB_STATE_CANCELLED, ExitCode(ErrorCode::kCancelled), "");
  }
  if (!reference_run_ && request_.spec().eval().has_check_against()) {
    return CheckAgainstSingleWorker();
  }
  if (!reference_run_) return End(proto::JOB_STATE_SUCCEEDED, 0, "");
  const Parity parity = Compare(main_trace_, reference_trace_);
  parity_ = parity.sentence;
  if (parity.bit_equal) return End(proto::JOB_STATE_SUCCEEDED, 0, "");
  End(proto::JOB_STATE_FAILED, ExitCode(ErrorCode::kGateFailed),
      fmt::format("eval.check_against: the run differs from one worker: {}", parity.sentence));
}

// The same ranks start anew with other layers each, from the checkpoint that they just wrote.
void JobLife::MoveLayers(const proto::Finished& finished) {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (state_.hosts.contains(ranks_[rank].place.host)) continue;
    return End(
        proto::JOB_STATE_FAILED, ExitCode(ErrorCode::kPeerDown),
        fmt::format("the host of rank {} was lost while layers moved: go on with --resume", rank));
  }
  decided_.Move(request_.spec(), {finished.stage_layers().begin(), finished.stage_layers().end()});
  resume_from_ = finished.checkpoint();
  for (RankState& rank : ranks_) rank = RankState{.place = rank.place};
  SetState(proto::JOB_STATE_STARTING);
  Spawn(request_.spec());
}

void JobLife::CheckAgainstSingleWorker() {
  const Placement place = ranks_[0].place;
  for (size_t rank = 1; rank < ranks_.size(); ++rank) {
    const auto host = state_.hosts.find(ranks_[rank].place.host);
    if (host != state_.hosts.end()) host->second.used_slots.erase(ranks_[rank].place.slot);
  }
  if (!state_.hosts.contains(place.host)) {
    return End(proto::JOB_STATE_FAILED, ExitCode(ErrorCode::kPeerDown),
               "the host of rank 0 was lost before the run on one worker");
  }
  ranks_.assign(1, RankState{.place = place});
  reference_run_ = true;
  proto::JobSpec single = SingleWorkerSpec(request_.spec());
  single.clear_eval();
  single.mutable_checkpoint()->set_every(0);
  single.mutable_checkpoint()->set_save_hf(false);
  SetState(proto::JOB_STATE_DRAINING);
  Spawn(single);
}

void JobLife::End(proto::JobState state, int exit_code, std::string reason) {
  FreeSlots();
  summary_.set_exit_code(exit_code);
  summary_.set_reason(reason);
  SetState(state);
  proto::JobEvent event;
  auto* result = event.mutable_result();
  result->set_state(state);
  result->set_exit_code(exit_code);
  result->set_reason(std::move(reason));
  result->set_run_directory(request_.run_directory());
  result->set_checkpoint(checkpoint_);
  result->set_parity(parity_);
  recorder_ ? Record(event) : TellResult(std::move(event));
  // Not from within: StartWhatFits walks the jobs, this one among them.
  seams_.scheduler.Post([&state = state_] { StartWhatFits(state); });
}

void JobLife::Record(const proto::JobEvent& result) {
  record_timer_ = seams_.scheduler.After(kRecordMs, [this, result] {
    Talk(
        "job {}: {} is not written whole after {} ms, its result is told without: is the disk "
        "slow?\n",
        id_, request_.run_directory(), kRecordMs);
    TellResult(result);
  });
  recorder_->Ended(result.result(), [this, result] {
    seams_.scheduler.Cancel(record_timer_);
    TellResult(result);
    // Not from within its own call.
    seams_.scheduler.Post([recorder = std::shared_ptr<JobRecorder>(std::move(recorder_))] {});
  });
}

void JobLife::TellResult(proto::JobEvent result) {
  if (std::exchange(result_told_, true)) return;
  Emit(std::move(result));
  for (const auto& [id, follower] : followers_) follower->Finish();
  followers_.clear();
}

}  // namespace troupe
