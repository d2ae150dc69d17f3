#include "actors/schedule_actor.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

namespace troupe {

ScheduleActor::ScheduleActor(ScheduleOptions options, std::vector<RankRef> ranks, JobRef job)
    : options_(std::move(options)), ranks_(std::move(ranks)), job_(job) {
  CHECK(!ranks_.empty() && options_.num_microbatches > 0);
}

template <typename M>
Status ScheduleActor::Broadcast(const M& message) {
  for (const RankRef& rank : ranks_) RETURN_IF_ERROR(rank.Send(message));
  return {};
}

void ScheduleActor::AwaitRanks(std::string_view activity, std::string_view owed, int64_t step) {
  answered_.assign(ranks_.size(), false);
  wait_ = context().BeginWait(
      {.waiter = "schedule",
       .activity = activity,
       .owed = owed,
       .from = "ranks",
       .step = step,
       .deadline_ms = options_.wait_deadline_ms,
       .detail =
           [](const void* self) { return static_cast<const ScheduleActor*>(self)->Missing(); },
       .about = this});
}

void ScheduleActor::AwaitDisk(std::string_view owed) {
  wait_ = context().BeginWait({.waiter = "schedule",
                               .activity = "checkpoint",
                               .owed = owed,
                               .from = "the disk",
                               .step = step_,
                               .deadline_ms = options_.wait_deadline_ms});
}

std::string ScheduleActor::Missing() const {
  std::vector<size_t> missing;
  for (size_t rank = 0; rank < answered_.size(); ++rank) {
    if (!answered_[rank]) missing.push_back(rank);
  }
  return fmt::format("missing: {} of {}", fmt::join(missing, ", "), answered_.size());
}

Result<bool> ScheduleActor::Answered(int32_t rank) {
  const auto index = static_cast<size_t>(rank);
  if (rank < 0 || index >= answered_.size() || answered_[index]) {
    return MakeError(ErrorCode::kFailed, "rank {} answered where no answer of it was due", rank);
  }
  answered_[index] = true;
  if (!std::ranges::all_of(answered_, std::identity{})) return false;
  wait_.Reset();
  return true;
}

Status ScheduleActor::On(BeginTraining begin) {
  if (state_ == State::kEnded) return {};  // cancelled before
  CHECK(state_ == State::kIdle, "training begins once");
  step_ = begin.committed_step;
  saved_ns_ = context().clock().NowNs();
  if (IsLastStep()) return AfterStep();  // stopped after its last step: the rest is still to do
  return StartRound(State::kVoting, proto::STEP_MODE_TRAIN);
}

Status ScheduleActor::StartRound(State state, proto::StepMode mode) {
  state_ = state;
  votes_.clear();
  proto::StepStart start;
  start.set_round(++round_);
  start.set_mode(mode);
  switch (mode) {
    case proto::STEP_MODE_TRAIN:
      step_start_ns_ = context().clock().NowNs();
      start.set_step(step_ + 1);
      start.set_num_microbatches(options_.num_microbatches);
      start.set_learning_rate(options_.learning_rate(step_ + 1));
      start.set_first_sample(step_ * options_.global_batch_size);
      running_order_ = static_cast<int32_t>(order_);
      start.set_order(running_order_);
      break;
    case proto::STEP_MODE_EVAL:
      start.set_step(step_);
      start.set_num_microbatches(options_.evaluate_microbatches);
      start.set_first_sample(evaluate_round_ * options_.global_batch_size);
      break;
    default: {
      start.set_step(step_);
      start.set_num_microbatches(1);
      start.set_temperature(options_.sample_temperature);
      start.set_sample_seed(options_.sample_seed);
      start.set_first_sample(static_cast<int64_t>(sequence_.size()));
      // The model sees at most seq_len tokens: the newest.
      const auto seen = std::min<size_t>(sequence_.size(), static_cast<size_t>(options_.seq_len));
      start.mutable_tokens()->Assign(sequence_.end() - static_cast<int64_t>(seen), sequence_.end());
    }
  }
  AwaitRanks("step", "votes", start.step());
  return Broadcast(start);
}

Status ScheduleActor::On(proto::Vote vote) {
  if (state_ == State::kEnded) return {};
  if (vote.round() != round_) {  // I1
    return MakeError(ErrorCode::kFailed, "rank {} votes in round {}, round {} is open", vote.rank(),
                     vote.round(), round_);
  }
  if (state_ != State::kVoting && state_ != State::kEvaluating && state_ != State::kSampling) {
    return MakeError(ErrorCode::kFailed, "a vote of rank {} came while none was asked for",
                     vote.rank());
  }
  ASSIGN_OR_RETURN(const bool all, Answered(vote.rank()));
  votes_.push_back(std::move(vote));
  if (!all) return {};
  std::ranges::sort(votes_, {}, &proto::Vote::rank);
  switch (state_) {
    case State::kVoting:
      return Decide();
    case State::kEvaluating:
      return AfterEvaluation();
    default:
      return AfterSample();
  }
}

Status ScheduleActor::Decide() {
  ASSIGN_OR_RETURN(decided_, AddLosses(votes_, options_.num_microbatches));
  ASSIGN_OR_RETURN(const double sum_norm, GradientNorm(votes_, options_.num_parameters));
  decided_norm_ = sum_norm / static_cast<double>(decided_.num_tokens);
  bubble_ = MeasuredBubble(votes_);
  proto::Commit commit;
  commit.set_step(step_ + 1);
  commit.set_apply(decided_.finite);
  commit.set_gradient_factor(
      GradientFactor(decided_norm_, options_.grad_clip, decided_.num_tokens));
  commit.set_learning_rate(options_.learning_rate(step_ + 1));
  if (!decided_.finite) {
    return End(
        MakeError(ErrorCode::kFailed,
                  "step {}: loss or gradient is not finite (loss {}); the step was dropped: lower "
                  "optimizer.lr or raise lr_scheduler.warmup_steps",
                  step_ + 1, decided_.Loss()));
  }
  state_ = State::kUpdating;
  AwaitRanks("optimizer", "words that it is done", step_ + 1);
  return Broadcast(commit);  // I3
}

Status ScheduleActor::On(proto::StepDone done) {
  if (state_ != State::kUpdating) return {};
  ASSIGN_OR_RETURN(const bool all, Answered(done.rank()));
  if (!all) return {};
  ++step_;
  evaluated_ = checkpointed_ = false;
  proto::StepMetrics metrics;
  metrics.set_step(step_);
  metrics.set_loss(decided_.Loss());
  metrics.set_grad_norm(decided_norm_);
  metrics.set_lr(options_.learning_rate(step_));
  metrics.set_tokens(step_ * decided_.num_tokens);
  const double seconds = static_cast<double>(context().clock().NowNs() - step_start_ns_) * 1e-9;
  metrics.set_step_seconds(seconds);
  metrics.set_tokens_per_second(static_cast<double>(decided_.num_tokens) / std::max(seconds, 1e-9));
  metrics.set_bubble_fraction(bubble_);
  if (options_.product_flops > 0) {
    metrics.set_mfu(options_.step_flops / std::max(seconds, 1e-9) / options_.product_flops);
  }
  metrics.set_order(running_order_);
  double data_ns = 0;
  double message_ns = 0;
  for (const auto& vote : votes_) {
    data_ns += static_cast<double>(vote.data_wait_ns());
    message_ns += static_cast<double>(vote.message_wait_ns());
  }
  metrics.set_data_seconds(data_ns * 1e-9 / static_cast<double>(ranks_.size()));
  metrics.set_comm_seconds(message_ns * 1e-9 / static_cast<double>(ranks_.size()));
  RETURN_IF_ERROR(job_.Send(StepCommitted{std::move(metrics), std::move(votes_)}));
  return AfterStep();
}

Status ScheduleActor::AfterStep() {
  const bool evaluate = options_.evaluate_every > 0 && !cancelling_ && !evaluated_ &&
                        options_.evaluate_rounds > 0 &&
                        (step_ % options_.evaluate_every == 0 || step_ == options_.steps);
  if (evaluate) {
    evaluated_ = true;
    evaluate_round_ = 0;
    evaluation_ = {};
    return StartRound(State::kEvaluating, proto::STEP_MODE_EVAL);
  }
  if (!checkpointed_ && CheckpointIsDue()) return StartCheckpoint();
  return NextOrEnd();
}

bool ScheduleActor::CheckpointIsDue() const {
  if (IsLastStep()) return cancelling_ ? checkpoint_on_cancel_ : options_.checkpoint_at_end;
  if (options_.checkpoint_every > 0 && step_ % options_.checkpoint_every == 0) return true;
  constexpr int64_t kSecond = 1'000'000'000;
  return options_.checkpoint_every_seconds > 0 &&
         (context().clock().NowNs() - saved_ns_) / kSecond >= options_.checkpoint_every_seconds;
}

Status ScheduleActor::AfterEvaluation() {
  ASSIGN_OR_RETURN(const StepSums sums, AddLosses(votes_, options_.evaluate_microbatches));
  evaluation_.loss_sum += sums.loss_sum;
  evaluation_.num_tokens += sums.num_tokens;
  if (++evaluate_round_ < options_.evaluate_rounds) {
    return StartRound(State::kEvaluating, proto::STEP_MODE_EVAL);
  }
  proto::EvalMetrics metrics;
  metrics.set_step(step_);
  metrics.set_val_loss(evaluation_.Loss());
  metrics.set_tokens(evaluation_.num_tokens);
  RETURN_IF_ERROR(job_.Send(std::move(metrics)));
  return AfterStep();
}

Status ScheduleActor::StartCheckpoint() {
  checkpointed_ = true;
  state_ = State::kOpening;
  AwaitDisk("folders");
  return job_.Send(OpenFolders{step_});
}

Status ScheduleActor::On(FoldersOpened opened) {
  CHECK(state_ == State::kOpening, "folders come when they are asked for");
  wait_.Reset();
  if (!opened.folders.ok()) return End(std::move(opened.folders).error());
  if (opened.folders->checkpoint.empty() && opened.folders->exported.empty()) return NextOrEnd();
  state_ = State::kCheckpointing;
  shards_.clear();
  proto::CheckpointStart start;
  start.set_step(step_);
  start.set_directory(opened.folders->checkpoint);
  start.set_hf_directory(opened.folders->exported);
  AwaitRanks("checkpoint", "shards", step_);
  return Broadcast(start);
}

Status ScheduleActor::On(proto::CheckpointDone done) {
  if (state_ != State::kCheckpointing || done.step() != step_) return {};
  ASSIGN_OR_RETURN(const bool all, Answered(done.rank()));
  shards_.push_back(std::move(done));
  if (!all) return {};
  std::ranges::sort(shards_, {}, &proto::CheckpointDone::rank);
  for (const auto& shard : shards_) {
    if (shard.error().empty()) continue;
    return End(Error{
        static_cast<ErrorCode>(shard.error_code()),
        fmt::format("rank {}: checkpoint of step {}: {}", shard.rank(), step_, shard.error())});
  }
  state_ = State::kCommitting;
  AwaitDisk("commit");
  return job_.Send(CommitShards{
      .step = step_, .steps_left = options_.steps - step_, .shards = std::move(shards_)});
}

Status ScheduleActor::On(ShardsCommitted committed) {
  CHECK(state_ == State::kCommitting, "a commit ends when one was asked for");
  wait_.Reset();
  if (!committed.status.ok()) return End(std::move(committed.status));
  saved_ns_ = context().clock().NowNs();
  if (!IsLastStep() && committed.moves) return End({});
  return NextOrEnd();
}

Status ScheduleActor::NextOrEnd() {
  if (!IsLastStep()) return StartRound(State::kVoting, proto::STEP_MODE_TRAIN);
  if (!cancelling_ && options_.sample_tokens > 0 && !options_.prompt.empty() &&
      step_ >= options_.steps) {
    sequence_ = options_.prompt;
    return StartRound(State::kSampling, proto::STEP_MODE_SAMPLE);
  }
  return End({});
}

Status ScheduleActor::AfterSample() {
  const auto token = std::ranges::find_if(
      votes_, [](const proto::Vote& vote) { return vote.sampled_token() >= 0; });
  if (token == votes_.end()) {
    return MakeError(ErrorCode::kFailed, "no rank voted a sampled token");
  }
  sequence_.push_back(token->sampled_token());
  const size_t drawn = sequence_.size() - options_.prompt.size();
  if (drawn < static_cast<size_t>(options_.sample_tokens) && !cancelling_) {
    return StartRound(State::kSampling, proto::STEP_MODE_SAMPLE);
  }
  RETURN_IF_ERROR(job_.Send(TokensSampled{
      {sequence_.begin() + static_cast<int64_t>(options_.prompt.size()), sequence_.end()}}));
  return End({});
}

// The open step ends first: a cancelled job is one that stopped between two steps.
Status ScheduleActor::On(CancelTraining cancel) {
  cancelling_ = true;
  checkpoint_on_cancel_ = cancel.checkpoint;
  return state_ == State::kIdle ? End({}) : Status{};
}

Status ScheduleActor::On(OrderChosen chosen) {
  order_ = chosen.order;
  return {};
}

Status ScheduleActor::End(Status status) {
  if (state_ == State::kEnded) return {};
  state_ = State::kEnded;
  wait_.Reset();
  return job_.Send(
      TrainingEnded{.end = std::move(status), .last_step = step_, .cancelled = cancelling_});
}

}  // namespace troupe
