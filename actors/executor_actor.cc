#include "actors/executor_actor.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe {

ExecutorActor::ExecutorActor(ExecutorOptions options, Peers peers)
    : options_(std::move(options)),
      peers_(std::move(peers)),
      name_(fmt::format("rank {}", options_.rank)),
      evaluate_(options_.evaluate, options_.place, {}, DataArrival::kMarked),
      sample_(options_.sample, options_.place, {}, DataArrival::kMarked),
      outputs_({.rank = options_.rank,
                .boundary = options_.boundary,
                .num_buffers = options_.output_buffers,
                .neighbours = peers_.neighbours,
                .trace = options_.trace,
                .traffic = options_.traffic}),
      trace_(options_.rank, options_.trace, options_.memory),
      wait_({.waiter = name_,
             .pipeline = options_.pipeline,
             .stage_names = StageNames(options_.train, options_.pipeline),
             .decides = options_.follows.value_or(options_.rank),
             .deadline_ms = options_.wait_deadline_ms}),
      choices_(
          {.self = options_.rank, .follows = options_.follows, .followers = peers_.followers}) {
  CHECK(!peers_.stages.empty(), "{} holds no stage", name_);
  train_.emplace_back(options_.train, options_.place, options_.policy, DataArrival::kMarked);
  for (const TrainSchedule& other : options_.others) {
    train_.emplace_back(other.schedule, options_.place, other.policy, DataArrival::kMarked);
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

Status ExecutorActor::On(proto::StepStart start) {
  if (state_ != State::kIdle) {
    return MakeError(ErrorCode::kFailed, "{}: round {} starts before round {} has ended", name_,
                     start.round(), start_.round());
  }
  wait_.EndPhase();
  start_ = std::move(start);
  round_start_ns_ = context().clock().NowNs();
  ASSIGN_OR_RETURN(const RankList* list, ListOf(start_));
  schedule_ = &list->schedule();
  if (start_.num_microbatches() != schedule_->num_microbatches) {
    return MakeError(ErrorCode::kFailed, "{}: round {} has {} microbatches, the plan {}", name_,
                     start_.round(), start_.num_microbatches(), schedule_->num_microbatches);
  }
  state_ = State::kRunning;
  const bool trains = start_.mode() == proto::STEP_MODE_TRAIN;
  if (options_.traffic != nullptr) options_.traffic->BeginStep(trains);
  progress_.emplace(*list);
  RETURN_IF_ERROR(choices_.Begin(start_.round(), trains, *progress_));
  reductions_.reset();
  if (trains) {
    reductions_.emplace(options_.reductions, *schedule_, options_.place);
    trace_.StepBegins(start_.step());
  }
  vote_.Begin(start_, options_.rank);
  stage_answers_ = 0;
  microbatches_.clear();
  for (const ActionInputs::Key& early : inputs_.ArrivedFor(start_.round())) {  // I2
    if (!progress_->MarkArrived(early.kind, early.stage, early.microbatch, early.input)) {
      return MakeError(ErrorCode::kCorrupt, "{}: an input of stage {}, microbatch {} is not its",
                       name_, early.stage, early.microbatch);
    }
  }
  RETURN_IF_ERROR(peers_.loader.Send(
      FetchMicrobatches{.round = start_.round(),
                        .mode = start_.mode(),
                        .first_sample = start_.first_sample(),
                        .num_microbatches = start_.num_microbatches(),
                        .text = {start_.tokens().begin(), start_.tokens().end()}}));
  return Advance();
}

Status ExecutorActor::On(MicrobatchesReady ready) {
  if (ready.round != start_.round() || state_ != State::kRunning) return {};
  RETURN_IF_ERROR(std::move(ready.status));
  microbatches_ = std::move(ready.microbatches);
  for (const RankList::Stage& stage : progress_->list().stages()) {
    for (int32_t m = 0; m < start_.num_microbatches(); ++m) {
      if (progress_->list().CellIndex(stage.stage, MicrobatchId(m)) < 0) continue;  // not its own
      if (!progress_->MarkArrived(InputKind::kData, stage.stage, MicrobatchId(m))) {
        return MakeError(ErrorCode::kFailed, "{}: the data of microbatch {} came twice", name_, m);
      }
    }
  }
  return Advance();
}

Status ExecutorActor::On(WithBulk<Activation> m) {
  trace_.Received(m.envelope, InputKind::kActivation, m.arrived_ns, context().clock());
  const Activation& message = m.message;
  return Arrive({message.round, InputKind::kActivation, StageId(message.stage),
                 MicrobatchId(message.microbatch), message.input},
                message.tensor, std::move(m.bulk));
}

Status ExecutorActor::On(WithBulk<ActivationGradient> m) {
  trace_.Received(m.envelope, InputKind::kGradient, m.arrived_ns, context().clock());
  const ActivationGradient& message = m.message;
  return Arrive({message.round, InputKind::kGradient, StageId(message.stage),
                 MicrobatchId(message.microbatch)},
                message.tensor, std::move(m.bulk));
}

Status ExecutorActor::Arrive(const ActionInputs::Key& key, const TensorDescriptor& tensor,
                             Bulk bulk) {
  // A tensor of another shape is a protocol error with a name, never a corrupted activation.
  if (!SameTensor(tensor, options_.boundary) || bulk.bytes().size() != tensor.num_bytes ||
      !peers_.stages.contains(key.stage) || key.round < start_.round()) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: {} for stage {}, microbatch {}, round {} with {} bytes does not fit the "
                     "plan ({} bytes between stages, round {})",
                     name_, InputKindName(key.kind), key.stage, key.microbatch, key.round,
                     bulk.bytes().size(), options_.boundary.num_bytes, start_.round());
  }
  const bool now = state_ == State::kRunning && key.round == start_.round();
  if (!inputs_.Keep(key, std::move(bulk)) ||
      (now && !progress_->MarkArrived(key.kind, key.stage, key.microbatch, key.input))) {
    return MakeError(ErrorCode::kCorrupt, "{}: {} for stage {}, microbatch {} came twice", name_,
                     InputKindName(key.kind), key.stage, key.microbatch);
  }
  return now ? Advance() : Status{};
}

Status ExecutorActor::On(ActionChosen chosen) {
  const bool now = state_ == State::kRunning && chosen.round == start_.round();
  RETURN_IF_ERROR(choices_.Take(chosen, now ? &*progress_ : nullptr));
  return now ? Advance() : Status{};
}

Status ExecutorActor::Advance() {
  if (state_ != State::kRunning) return {};
  Decision decision = NextAction(*progress_);
  const Start* start = nullptr;
  while ((start = std::get_if<Start>(&decision)) != nullptr && IsCollective(start->action.kind)) {
    RETURN_IF_ERROR(StartCollective(*start));
    decision = NextAction(*progress_);
  }
  if (start != nullptr) {
    const auto output = OutputOf(*schedule_, start->action);
    if (output && !outputs_.HasRoom(*output)) {  // I3: transient, buffers come back by themselves
      wait_.ForRoom(context(), *output, start_.step());
      return {};
    }
    wait_.End(context(), vote_.vote());
    progress_->MarkStarted(start->entry);
    if (options_.on_progress) options_.on_progress({start_.step(), "", start->action});
    RETURN_IF_ERROR(Launch(start->action));
    return choices_.Started(start->action);
  }
  if (const auto* blocked = std::get_if<Blocked>(&decision)) {
    if (blocked->reason == BlockReason::kOwnStage) {
      return MakeError(ErrorCode::kFailed, "{}: {}", name_, Describe(*blocked));
    }
    wait_.ForInput(context(), *blocked, start_.step());
    return {};
  }
  wait_.EndPhase();
  return FinishList();
}

void ExecutorActor::Tell(int64_t step, std::string_view phase) const {
  if (options_.on_progress) options_.on_progress({.step = step, .phase = phase});
}

Status ExecutorActor::Launch(const Action& action) {
  RunAction run{
      .action = action, .round = start_.round(), .step = start_.step(), .mode = start_.mode()};
  for (const Transfer& input : InputsOf(*schedule_, action)) {
    run.inputs[static_cast<size_t>(input.input)] =
        inputs_.Read(ActionInputs::KeyOf(start_.round(), input));
  }
  if (action.kind == ActionKind::kForward) {
    run.data = microbatches_.at(static_cast<size_t>(action.microbatch.value));
  }
  if (const Action* next = NextOverWeights(*progress_)) run.next = *next;
  run.last_token = start_.tokens_size() - 1;
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
  const int32_t entry = progress_->OpenEntryOf(done.action);
  if (entry < 0) {
    return MakeError(ErrorCode::kFailed, "{}: {} ends without having started", name_,
                     ToString(done.action));
  }
  if (IsCollective(done.action.kind)) return EndCollective(entry, done.action);
  for (const Transfer& input : InputsOf(*schedule_, done.action)) {  // I4
    inputs_.LetGo(ActionInputs::KeyOf(done.round, input));
  }
  vote_.Add(done,
            options_.batch.NumberInStep(options_.data_parallel_rank, done.action.microbatch.value));
  const auto output = OutputOf(*schedule_, done.action);
  if (output && !output->crosses_ranks()) {
    inputs_.HandOver(ActionInputs::KeyOf(done.round, *output), std::move(done.output));
  }
  const bool outputs_leave = progress_->MarkDone(entry);
  const StageId stage = done.action.stage;
  if (reductions_ && progress_->HasAllGradients(stage) && !progress_->list().ListsSums(stage)) {
    reductions_->MarkGradients(stage);
  }
  if (output && output->crosses_ranks()) {
    outputs_.Reserve(*output);
    held_back_.emplace_back(*output, std::move(done.output));
  }
  if (outputs_leave) {
    for (auto& [transfer, held] : held_back_) SendSoon(transfer, std::move(held));
    held_back_.clear();
  }
  RETURN_IF_ERROR(Advance());
  return StartReductions();  // I7
}

Status ExecutorActor::StartCollective(const Start& start) {
  progress_->MarkStarted(start.entry);
  if (start.action.kind != ActionKind::kWaitReduceGrad) return Launch(start.action);
  progress_->MarkDone(start.entry);
  return {};
}

// A reduction has ended when the sums are there that the stage has begun.
Status ExecutorActor::EndCollective(int32_t entry, const Action& action) {
  if (action.kind != ActionKind::kReduceGrad) {
    progress_->MarkDone(entry);
    return Advance();
  }
  if (!action.of_microbatch) reductions_->MarkGradients(action.stage);
  reductions_->MarkBegun(entry, action.stage);
  return EndSums();
}

Status ExecutorActor::EndSums() {
  for (const int32_t entry : reductions_->TakeEnded()) progress_->MarkDone(entry);
  RETURN_IF_ERROR(Advance());
  return StartReductions();
}

Status ExecutorActor::On(ActionWaits action) {
  if (IsCollective(action.action.kind)) return {};  // it holds up nothing
  const int32_t entry = progress_ ? progress_->OpenEntryOf(action.action) : -1;
  if (entry < 0) {
    return MakeError(ErrorCode::kFailed, "{}: {} waits without having started", name_,
                     ToString(action.action));
  }
  progress_->MarkWaiting(entry, action.waits);
  return Advance();
}

// Sending copies the output, so it waits for the scheduler's next pass: by then the stage has
// launched the next action (I7).
void ExecutorActor::SendSoon(const Transfer& transfer, Buffer output) {
  outputs_.Park({.transfer = transfer,
                 .round = start_.round(),
                 .step = start_.step(),
                 .training = start_.mode() == proto::STEP_MODE_TRAIN,
                 .bytes = std::move(output)});
  context().scheduler().Post(
      [executor = ActorRef<OutputReady>(self()), ready = OutputReady{transfer.to, transfer.kind}] {
        (void)executor.Send(ready);  // an executor that has ended sends nothing
      });
}

Status ExecutorActor::FinishList() {
  if (start_.mode() != proto::STEP_MODE_TRAIN) return SendVote();
  state_ = State::kReducing;  // who keeps a sum waiting is its group's to say, by rank
  return reductions_->Done() ? CollectVotes() : Status{};
}

Status ExecutorActor::StartReductions() {
  if (!reductions_) return {};
  while (const auto step = reductions_->Next()) {
    RETURN_IF_ERROR(peers_.stages.at(step->stage)
                        .Send(ReduceGradient{start_.round(), start_.step(), step->reduction}));
  }
  return {};
}

Status ExecutorActor::On(GradientReduced reduced) {
  RETURN_IF_ERROR(std::move(reduced.status));
  if (reduced.round != start_.round() || !reductions_ ||
      !reductions_->MarkReduced(reduced.reduction)) {
    return MakeError(ErrorCode::kFailed, "{}: gradient {} was reduced unasked", name_,
                     reduced.reduction);
  }
  RETURN_IF_ERROR(EndSums());
  return state_ == State::kReducing && reductions_->Done() ? CollectVotes() : Status{};
}

Status ExecutorActor::CollectVotes() {
  state_ = State::kVoting;
  phase_start_ns_ = context().clock().NowNs();
  wait_.ForStages(context(), "vote", "gradient norms", start_.step());
  for (const auto& [stage, ref] : peers_.stages) {
    RETURN_IF_ERROR(ref.Send(CollectVote{start_.round()}));
  }
  return {};
}

Status ExecutorActor::On(CreditReturned credit) {
  return outputs_.Flush(credit.to, credit.channel, self(), context().clock());
}

Status ExecutorActor::On(OutputReady output) {
  return outputs_.Flush(output.to, ChannelOf(output.kind), self(), context().clock());
}

Status ExecutorActor::On(OutputSent sent) {
  outputs_.MarkSent(sent);
  return Advance();
}

Status ExecutorActor::On(StageVote vote) {
  RETURN_IF_ERROR(std::move(vote.status));
  vote_.Add(std::move(vote));
  return ++stage_answers_ < peers_.stages.size() ? Status{} : SendVote();
}

Status ExecutorActor::SendVote() {
  const bool trains = start_.mode() == proto::STEP_MODE_TRAIN;
  state_ = trains ? State::kVoted : State::kIdle;
  Tell(start_.step(), "vote");
  if (!trains) {
    wait_.ForNextRound(context(), start_.step());
    trace_.Phase(start_.mode() == proto::STEP_MODE_EVAL ? "evaluation" : "sampling", start_.step(),
                 round_start_ns_, context().clock());
  } else {
    vote_.AddTimes();
    wait_.ForSchedule(context(), "optimizer", "commit", start_.step());
  }
  return peers_.schedule.Send(vote_.vote());
}

Status ExecutorActor::On(proto::Commit commit) {
  if (state_ != State::kVoted || commit.step() != start_.step()) {
    return MakeError(ErrorCode::kFailed, "{}: commit of step {} in step {}, not voted", name_,
                     commit.step(), start_.step());
  }
  state_ = State::kUpdating;
  wait_.ForStages(context(), "optimizer", "update", start_.step());
  trace_.Phase("vote", start_.step(), phase_start_ns_, context().clock());
  phase_start_ns_ = context().clock().NowNs();
  stage_answers_ = 0;
  Tell(start_.step(), "optimizer");
  for (const auto& [stage, ref] : peers_.stages) {
    RETURN_IF_ERROR(ref.Send(ApplyUpdate{.step = commit.step(),
                                         .apply = commit.apply(),
                                         .number = commit.update(),
                                         .gradient_factor = commit.gradient_factor(),
                                         .learning_rate = commit.learning_rate()}));
  }
  return {};
}

Status ExecutorActor::On(UpdateDone done) {
  RETURN_IF_ERROR(std::move(done.status));
  if (++stage_answers_ < peers_.stages.size()) return {};
  state_ = State::kIdle;
  if (options_.traffic != nullptr) options_.traffic->EndStep();
  wait_.ForNextRound(context(), start_.step());
  trace_.Phase("optimizer", start_.step(), phase_start_ns_, context().clock());
  trace_.StepEnds(start_.step(), round_start_ns_, context().clock());
  proto::StepDone answer;
  answer.set_step(done.step);
  answer.set_rank(options_.rank.value);
  return peers_.schedule.Send(answer);
}

Status ExecutorActor::On(proto::CheckpointStart start) {
  wait_.EndPhase();  // this rank owes the schedule something
  Tell(start.step(), "checkpoint");
  return peers_.checkpoint.Send(std::move(start));
}

}  // namespace troupe
