#include "actors/executor_actor.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

bool SameTensor(const TensorDescriptor& a, const TensorDescriptor& b) {
  return a.dtype == b.dtype && a.rank == b.rank && std::ranges::equal(a.shape, b.shape) &&
         a.num_bytes == b.num_bytes;
}

uint32_t ReceiveSpanName(InputKind kind) {
  static const uint32_t activation = InternTraceName("receive activation");
  static const uint32_t gradient = InternTraceName("receive gradient");
  return kind == InputKind::kActivation ? activation : gradient;
}

}  // namespace

std::string InWords(const RankActivity& activity) {
  if (!activity.action) return std::string(activity.phase);
  return fmt::format("{} of microbatch {} on stage {}", KindName(activity.action->kind),
                     activity.action->microbatch, activity.action->stage);
}

ExecutorActor::ExecutorActor(ExecutorOptions options, Peers peers)
    : options_(std::move(options)),
      peers_(std::move(peers)),
      name_(fmt::format("rank {}", options_.rank)),
      evaluate_(options_.evaluate, options_.rank, {}, DataArrival::kMarked),
      sample_(options_.sample, options_.rank, {}, DataArrival::kMarked),
      outputs_({.rank = options_.rank,
                .boundary = options_.boundary,
                .num_buffers = options_.output_buffers,
                .neighbours = peers_.neighbours,
                .trace = options_.trace}) {
  CHECK(!peers_.stages.empty(), "{} holds no stage", name_);
  for (StageId stage{}; stage.value < options_.train.num_stages; stage = stage.Next()) {
    stage_names_.push_back(fmt::format("stage {} (rank {})", stage, options_.train.RankOf(stage)));
  }
  train_.emplace_back(options_.train, options_.rank, options_.policy, DataArrival::kMarked);
  for (const TrainSchedule& other : options_.others) {
    train_.emplace_back(other.schedule, options_.rank, other.policy, DataArrival::kMarked);
  }
}

Result<const RankList*> ExecutorActor::ListOf(const proto::StepStart& start) const {
  if (start.mode() == proto::STEP_MODE_EVAL) return &evaluate_;
  if (start.mode() == proto::STEP_MODE_SAMPLE) return &sample_;
  if (start.order() >= 0 && static_cast<size_t>(start.order()) < train_.size()) {
    return &train_[static_cast<size_t>(start.order())];
  }
  return MakeError(ErrorCode::kFailed, "{}: round {} asks for order {} of {}", name_, start.round(),
                   start.order(), train_.size());
}

bool ExecutorActor::NeedsTokens() const {
  return std::ranges::any_of(progress_->list().stages(), [](const RankList::Stage& stage) {
    return stage.is_first || stage.is_last;
  });
}

Status ExecutorActor::On(proto::StepStart start) {
  if (state_ != State::kIdle) {
    return MakeError(ErrorCode::kFailed, "{}: round {} starts before round {} has ended", name_,
                     start.round(), start_.round());
  }
  start_ = std::move(start);
  round_start_ns_ = context().clock().NowNs();
  ASSIGN_OR_RETURN(const RankList* list, ListOf(start_));
  schedule_ = &list->schedule();
  if (start_.num_microbatches() != schedule_->num_microbatches) {
    return MakeError(ErrorCode::kFailed, "{}: round {} has {} microbatches, the plan {}", name_,
                     start_.round(), start_.num_microbatches(), schedule_->num_microbatches);
  }
  state_ = State::kRunning;
  progress_.emplace(*list);
  times_.Clear();
  vote_.Clear();
  vote_.set_step(start_.step());
  vote_.set_round(start_.round());
  vote_.set_rank(options_.rank.value);
  vote_.set_mode(start_.mode());
  vote_.set_finite(true);
  vote_.set_sampled_token(-1);
  stage_answers_ = 0;
  tokens_.clear();
  for (const auto& [key, slot] : slots_) {  // I2: what came early
    const auto& [round, stage, microbatch, kind] = key;
    if (round == start_.round() &&
        !progress_->MarkArrived(kind, StageId(stage), MicrobatchId(microbatch))) {
      return MakeError(ErrorCode::kCorrupt, "{}: an input of stage {}, microbatch {} is not its",
                       name_, stage, microbatch);
    }
  }
  if (NeedsTokens()) {
    if (start_.mode() == proto::STEP_MODE_SAMPLE) {
      auto tokens = std::make_shared<const std::vector<int32_t>>(start_.tokens().begin(),
                                                                 start_.tokens().end());
      return On(TokensReady{.round = start_.round(), .blocks = {std::move(tokens)}});
    }
    RETURN_IF_ERROR(peers_.loader.Send(FetchTokens{
        start_.round(), start_.mode(), start_.first_sample(), start_.num_microbatches()}));
  }
  return Advance();
}

Status ExecutorActor::On(TokensReady ready) {
  if (ready.round != start_.round() || state_ != State::kRunning) return {};
  RETURN_IF_ERROR(std::move(ready.status));
  tokens_ = std::move(ready.blocks);
  for (const RankList::Stage& stage : progress_->list().stages()) {
    if (!stage.is_first && !stage.is_last) continue;
    for (int32_t m = 0; m < start_.num_microbatches(); ++m) {
      if (progress_->list().CellIndex(stage.stage, MicrobatchId(m)) < 0) continue;  // not its own
      if (!progress_->MarkArrived(InputKind::kData, stage.stage, MicrobatchId(m))) {
        return MakeError(ErrorCode::kFailed, "{}: tokens of microbatch {} came twice", name_, m);
      }
    }
  }
  return Advance();
}

Status ExecutorActor::On(WithBulk<Activation> m) {
  TraceReceive(m.envelope, InputKind::kActivation, m.arrived_ns);
  return Arrive(InputKind::kActivation, m.message.round, m.message.stage, m.message.microbatch,
                m.message.tensor, std::move(m.bulk));
}

Status ExecutorActor::On(WithBulk<ActivationGradient> m) {
  TraceReceive(m.envelope, InputKind::kGradient, m.arrived_ns);
  return Arrive(InputKind::kGradient, m.message.round, m.message.stage, m.message.microbatch,
                m.message.tensor, std::move(m.bulk));
}

Status ExecutorActor::Arrive(InputKind kind, int64_t round, int32_t stage, int32_t microbatch,
                             const TensorDescriptor& tensor, Bulk bulk) {
  // A tensor of another shape is a protocol error with a name, never a corrupted activation.
  if (!SameTensor(tensor, options_.boundary) || bulk.bytes().size() != tensor.num_bytes ||
      !peers_.stages.contains(StageId(stage)) || round < start_.round()) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: {} for stage {}, microbatch {}, round {} with {} bytes does not fit the "
                     "plan ({} bytes between stages, round {})",
                     name_, InputKindName(kind), stage, microbatch, round, bulk.bytes().size(),
                     options_.boundary.num_bytes, start_.round());
  }
  const bool now = state_ == State::kRunning && round == start_.round();
  if (!slots_.try_emplace(InputKey{round, stage, microbatch, kind}, std::move(bulk)).second ||
      (now && !progress_->MarkArrived(kind, StageId(stage), MicrobatchId(microbatch)))) {
    return MakeError(ErrorCode::kCorrupt, "{}: {} for stage {}, microbatch {} came twice", name_,
                     InputKindName(kind), stage, microbatch);
  }
  return now ? Advance() : Status{};
}

Status ExecutorActor::Advance() {
  if (state_ != State::kRunning) return {};
  const Decision decision = NextAction(*progress_);
  if (const auto* start = std::get_if<Start>(&decision)) {
    const auto output = OutputOf(*schedule_, start->action);
    if (output && !outputs_.HasRoom(*output)) {  // I3: transient, buffers come back by themselves
      WaitForRoom(*output);
      return {};
    }
    EndWait();
    progress_->MarkStarted(start->entry);
    return Launch(start->action);
  }
  if (const auto* blocked = std::get_if<Blocked>(&decision)) {
    if (blocked->reason == BlockReason::kOwnStage) {
      return MakeError(ErrorCode::kFailed, "{}: {}", name_, Describe(*blocked));
    }
    if (blocked->reason != BlockReason::kRunning) WaitFor(*blocked);
    return {};
  }
  // The head after the last one is Finished also while the last one runs.
  if (progress_->running()) return {};
  wait_.Reset();
  return FinishList();
}

void ExecutorActor::Tell(int64_t step, std::string_view phase) const {
  if (options_.on_progress) options_.on_progress({.step = step, .phase = phase});
}

void ExecutorActor::WaitFor(const Blocked& blocked) {
  if (waits_for_ == blocked && wait_.waiting()) return;  // since when does not change
  waits_for_ = blocked;
  if (wait_since_ns_ == 0) wait_since_ns_ = context().clock().NowNs();
  waits_for_data_ = blocked.kind == InputKind::kData;
  BeginWait(KindName(blocked.waiting.kind), InputKindName(blocked.kind),
            stage_names_.at(static_cast<size_t>(blocked.owed_stage.value)),
            waits_for_data_ ? Rank(-1) : options_.train.RankOf(blocked.owed_stage),
            blocked.microbatch);
}

void ExecutorActor::WaitForRoom(const Transfer& output) {
  waits_for_.reset();
  if (wait_since_ns_ == 0) wait_since_ns_ = context().clock().NowNs();
  waits_for_data_ = false;
  const bool forward = output.kind == InputKind::kActivation;
  BeginWait(KindName(forward ? ActionKind::kForward : ActionKind::kBackward), "room for its output",
            stage_names_.at(static_cast<size_t>(output.to_stage.value)),
            options_.train.RankOf(output.to_stage), output.microbatch);
}

void ExecutorActor::BeginWait(std::string_view activity, std::string_view owed,
                              std::string_view from, Rank from_rank,
                              std::optional<MicrobatchId> microbatch) {
  wait_ = context().BeginWait({.waiter = name_,
                               .activity = activity,
                               .owed = owed,
                               .from = from,
                               .step = start_.step(),
                               .microbatch = microbatch ? microbatch->value : -1,
                               .from_rank = from_rank.value,
                               .deadline_ms = options_.wait_deadline_ms});
}

void ExecutorActor::EndWait() {
  wait_.Reset();
  waits_for_.reset();
  if (wait_since_ns_ == 0) return;
  const int64_t waited_ns = context().clock().NowNs() - std::exchange(wait_since_ns_, 0);
  if (waits_for_data_) {
    vote_.set_data_wait_ns(vote_.data_wait_ns() + waited_ns);
  } else {
    vote_.set_message_wait_ns(vote_.message_wait_ns() + waited_ns);
  }
}

Status ExecutorActor::Launch(const Action& action) {
  if (options_.on_progress) options_.on_progress({.step = start_.step(), .action = action});
  RunAction run{
      .action = action, .round = start_.round(), .step = start_.step(), .mode = start_.mode()};
  if (const auto input = InputOf(*schedule_, action)) {
    const InputKey key{start_.round(), action.stage.value, action.microbatch.value, input->kind};
    run.input = input->crosses_ranks() ? std::span<const std::byte>(slots_.at(key).bytes())
                                       : std::as_const(local_.at(key)).bytes();
  }
  if (schedule_->IsFirstStage(action.stage) || schedule_->IsLastStage(action.stage)) {
    run.tokens = tokens_.at(static_cast<size_t>(action.microbatch.value));
  }
  run.temperature = start_.temperature();
  run.sample_seed = start_.sample_seed();
  run.sample_counter = static_cast<uint64_t>(start_.first_sample());
  return peers_.stages.at(action.stage).Send(std::move(run));
}

Status ExecutorActor::On(ActionDone done) {
  RETURN_IF_ERROR(std::move(done.status));
  if (done.round != start_.round() || state_ != State::kRunning) {
    return MakeError(ErrorCode::kFailed, "{}: {} answers round {} in round {}", name_,
                     ToString(done.action), done.round, start_.round());
  }
  if (const auto input = InputOf(*schedule_, done.action)) {  // I4
    const InputKey key{done.round, done.action.stage.value, done.action.microbatch.value,
                       input->kind};
    slots_.erase(key);
    local_.erase(key);
  }
  if (done.num_tokens > 0) {
    auto* loss = vote_.add_losses();
    loss->set_microbatch(done.action.microbatch.value);
    loss->set_loss_sum(done.loss_sum);
    loss->set_num_tokens(done.num_tokens);
  }
  if (done.sampled_token >= 0) vote_.set_sampled_token(done.sampled_token);
  if (vote_.first_action_ns() == 0) vote_.set_first_action_ns(done.time.start_ns);
  vote_.set_last_action_ns(done.time.end_ns);
  times_.Add(done.action, done.time.ran_ns);
  vote_.set_busy_ns(vote_.busy_ns() + done.time.ran_ns);

  const auto output = OutputOf(*schedule_, done.action);
  if (output && !output->crosses_ranks()) {
    local_.emplace(
        InputKey{done.round, output->to_stage.value, output->microbatch.value, output->kind},
        std::move(done.output));
  }
  const bool outputs_leave = progress_->MarkDone();
  if (output && output->crosses_ranks()) {
    outputs_.Reserve(*output);
    held_back_.emplace_back(*output, std::move(done.output));
  }
  if (outputs_leave) {
    for (auto& [transfer, held] : held_back_) SendSoon(transfer, std::move(held));
    held_back_.clear();
  }
  return Advance();
}

// Sending copies the output, so it waits for the scheduler's next pass: by then the stage has
// launched the next action (I7).
void ExecutorActor::SendSoon(const Transfer& transfer, Buffer output) {
  outputs_.Park({.transfer = transfer,
                 .round = start_.round(),
                 .step = start_.step(),
                 .bytes = std::move(output)});
  context().scheduler().Post([executor = ActorRef<CreditReturned>(self()),
                              credit = CreditReturned{transfer.to, ChannelOf(transfer.kind)}] {
    (void)executor.Send(credit);  // an executor that has ended sends nothing
  });
}

void ExecutorActor::TraceReceive(const Envelope& envelope, InputKind kind,
                                 int64_t arrived_ns) const {
  if (!options_.trace.Covers(envelope.step)) return;
  static const uint32_t track = InternTraceName("receive");
  SpanRecord span;
  span.name = ReceiveSpanName(kind);
  span.category = SpanCategory::kReceive;
  span.track = track;
  span.rank = options_.rank.value;
  span.stage = static_cast<int16_t>(envelope.stage);
  span.microbatch = envelope.microbatch;
  span.step = static_cast<int32_t>(envelope.step);
  span.flow_in = envelope.flow_id;
  span.end_ns = context().clock().NowNs();
  span.start_ns = arrived_ns > 0 ? arrived_ns : span.end_ns;
  ThreadTraceRing().Write(span);
}

void ExecutorActor::TracePhase(std::string_view name, int64_t start_ns) const {
  if (!options_.trace.Covers(start_.step())) return;
  static const uint32_t track = InternTraceName("step");
  SpanRecord span;
  span.name = InternTraceName(name);
  span.category = SpanCategory::kStep;
  span.track = track;
  span.rank = options_.rank.value;
  span.step = static_cast<int32_t>(start_.step());
  span.start_ns = start_ns;
  span.end_ns = context().clock().NowNs();
  ThreadTraceRing().Write(span);
}

Status ExecutorActor::FinishList() {
  if (start_.mode() != proto::STEP_MODE_TRAIN) return SendVote();
  state_ = State::kExchanging;
  exchange_.emplace(options_.exchanges, *schedule_, options_.rank);
  for (const auto& [key, bulk] : arrived_) {
    const auto& [round, stage, weights] = key;
    if (round == start_.round() && !exchange_->MarkArrived(stage, weights)) {
      return MakeError(ErrorCode::kCorrupt, "{}: a shared gradient for stage {} is not its", name_,
                       stage);
    }
  }
  return Exchange();
}

Status ExecutorActor::Exchange() {
  while (const auto step = exchange_->Next()) {
    switch (step->kind) {
      case ExchangeProgress::StepKind::kTake:
        RETURN_IF_ERROR(
            peers_.stages.at(step->stage).Send(TakeGradient{start_.round(), step->weights}));
        break;
      case ExchangeProgress::StepKind::kHandOver:
        RETURN_IF_ERROR(HandOver(*step));
        break;
      default: {
        const auto bulk = arrived_.find({start_.round(), step->stage, step->weights});
        const auto gradient = bulk != arrived_.end() ? std::as_const(bulk->second).bytes()
                                                     : given_.at({step->stage, step->weights});
        RETURN_IF_ERROR(
            peers_.stages.at(step->stage)
                .Send(MergeGradient{start_.round(), step->weights,
                                    step->kind == ExchangeProgress::StepKind::kReplace, gradient}));
      }
    }
  }
  if (exchange_->Done()) return CollectVotes();
  wait_.Reset();
  if (const auto peer = exchange_->WaitsFor()) {
    exchange_peer_ = fmt::format("rank {}", *peer);
    BeginWait("exchange", "shared gradient", exchange_peer_, *peer);
  }
  return {};
}

// What `from` gave goes to the stage it shares with: over the network, or on this rank by address.
// The bytes stay as they are until the commit, and no commit comes before the other rank has voted,
// which it does after letting them go.
Status ExecutorActor::HandOver(const ExchangeProgress::Step& step) {
  const auto gradient = given_.at({step.from, step.weights});
  if (step.to == options_.rank) {
    given_[{step.stage, step.weights}] = gradient;
    CHECK(exchange_->MarkArrived(step.stage, step.weights), "stage {} was handed a gradient twice",
          step.stage);
    return {};
  }
  const Postmark postmark{.channel = kSumChannel,
                          .message_class = MessageClass::kData,
                          .step = start_.step(),
                          .stage = step.stage.value,
                          .flow_id = NewFlowId(options_.rank)};
  return peers_.neighbours.at(step.to).SendBulk(
      SharedGradient{start_.round(), step.stage.value, step.weights,
                     options_.shared.at({step.from, step.weights})},
      gradient, [] {}, postmark);
}

Status ExecutorActor::On(GradientReady ready) {
  RETURN_IF_ERROR(std::move(ready.status));
  given_[{ready.stage, ready.weights}] = ready.gradient;
  if (state_ != State::kExchanging || !exchange_->MarkReady(ready.stage, ready.weights)) {
    return MakeError(ErrorCode::kFailed, "{}: stage {} gave a gradient unasked", name_,
                     ready.stage);
  }
  return Exchange();
}

Status ExecutorActor::On(WithBulk<SharedGradient> gradient) {
  const SharedGradient& message = gradient.message;
  const StageId stage(message.stage);
  const auto expected = options_.shared.find({stage, message.weights});
  const SharedKey key{message.round, stage, message.weights};
  const bool now = state_ == State::kExchanging && message.round == start_.round();
  if (expected == options_.shared.end() || !SameTensor(message.tensor, expected->second) ||
      gradient.bulk.bytes().size() != expected->second.num_bytes ||
      !arrived_.try_emplace(key, std::move(gradient.bulk)).second ||
      (now && !exchange_->MarkArrived(stage, message.weights))) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: a shared gradient for stage {}, round {} does not fit the plan", name_,
                     stage, message.round);
  }
  return now ? Exchange() : Status{};
}

Status ExecutorActor::On(GradientMerged merged) {
  RETURN_IF_ERROR(std::move(merged.status));
  arrived_.erase({merged.round, merged.stage, merged.weights});
  if (state_ != State::kExchanging || !exchange_->MarkMerged(merged.stage, merged.weights)) {
    return MakeError(ErrorCode::kFailed, "{}: stage {} merged a gradient unasked", name_,
                     merged.stage);
  }
  return Exchange();
}

Status ExecutorActor::CollectVotes() {
  state_ = State::kVoting;
  phase_start_ns_ = context().clock().NowNs();
  wait_.Reset();
  for (const auto& [stage, ref] : peers_.stages) {
    RETURN_IF_ERROR(ref.Send(CollectVote{start_.round()}));
  }
  return {};
}

Status ExecutorActor::On(CreditReturned credit) {
  return outputs_.Flush(credit.peer, credit.channel, self(), context().clock());
}

Status ExecutorActor::On(OutputSent sent) {
  outputs_.MarkSent(sent);
  return Advance();
}

Status ExecutorActor::On(StageVote vote) {
  RETURN_IF_ERROR(std::move(vote.status));
  for (auto& node : vote.norm_nodes) *vote_.add_norm_nodes() = std::move(node);
  vote_.set_finite(vote_.finite() && vote.finite);
  if (++stage_answers_ < peers_.stages.size()) return {};
  return SendVote();
}

Status ExecutorActor::SendVote() {
  if (start_.mode() == proto::STEP_MODE_TRAIN) times_.WriteTo(vote_);
  if (start_.mode() == proto::STEP_MODE_EVAL) TracePhase("evaluation", round_start_ns_);
  if (start_.mode() == proto::STEP_MODE_SAMPLE) TracePhase("sampling", round_start_ns_);
  state_ = start_.mode() == proto::STEP_MODE_TRAIN ? State::kVoted : State::kIdle;
  Tell(start_.step(), "vote");
  if (state_ == State::kVoted) BeginWait("optimizer", "commit", "schedule (rank 0)", Rank(0));
  return peers_.schedule.Send(vote_);
}

Status ExecutorActor::On(proto::Commit commit) {
  if (state_ != State::kVoted || commit.step() != start_.step()) {
    return MakeError(ErrorCode::kFailed, "{}: commit of step {} in step {}, not voted", name_,
                     commit.step(), start_.step());
  }
  state_ = State::kUpdating;
  wait_.Reset();
  TracePhase("vote", phase_start_ns_);
  phase_start_ns_ = context().clock().NowNs();
  stage_answers_ = 0;
  Tell(start_.step(), "optimizer");
  for (const auto& [stage, ref] : peers_.stages) {
    RETURN_IF_ERROR(ref.Send(ApplyUpdate{commit.step(), commit.apply(), commit.gradient_factor(),
                                         commit.learning_rate()}));
  }
  return {};
}

Status ExecutorActor::On(UpdateDone done) {
  RETURN_IF_ERROR(std::move(done.status));
  if (++stage_answers_ < peers_.stages.size()) return {};
  state_ = State::kIdle;
  TracePhase("optimizer", phase_start_ns_);
  TracePhase("step", round_start_ns_);
  proto::StepDone answer;
  answer.set_step(done.step);
  answer.set_rank(options_.rank.value);
  return peers_.schedule.Send(answer);
}

Status ExecutorActor::On(proto::CheckpointStart start) {
  Tell(start.step(), "checkpoint");
  return peers_.checkpoint.Send(std::move(start));
}

}  // namespace troupe
