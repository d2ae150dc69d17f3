#include "actors/train_program.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace troupe {

TrainProgram::TrainProgram(TrainOptions options) : options_(std::move(options)) {
  CHECK(options_.num_microbatches > 0);
}

void TrainProgram::Begin(const TrainingProgress& progress, int64_t now_ns) {
  progress_ = progress;
  saved_ns_ = now_ns;
  evaluated_ = checkpointed_ = !IsLastStep();  // T1
}

std::optional<Deed> TrainProgram::Next(int64_t now_ns) {
  if (part_) {
    if (auto deed = part_->Next(now_ns)) return deed;
    part_.reset();
  }
  if (!evaluated_ && EvaluationIsDue()) {
    evaluated_ = true;
    return StartPart(std::make_unique<EvaluateProgram>(options_.evaluate), now_ns);
  }
  if (!checkpointed_ && CheckpointIsDue(now_ns)) {
    checkpointed_ = true;
    saved_ns_ = now_ns;  // and again when it is committed
    return Save{.progress = progress_,
                .steps_left = IsLastStep() ? 0 : options_.steps - progress_.step};
  }
  if (!IsLastStep()) return NextStep();
  if (!sampled_ && SampleIsDue()) {
    sampled_ = true;
    return StartPart(std::make_unique<SampleProgram>(options_.sample), now_ns);
  }
  return std::nullopt;
}

bool TrainProgram::EvaluationIsDue() const {
  return options_.evaluate_every > 0 && options_.evaluate.rounds > 0 && !cancelling_ &&
         (progress_.step % options_.evaluate_every == 0 || progress_.step == options_.steps);
}

bool TrainProgram::CheckpointIsDue(int64_t now_ns) const {
  if (IsLastStep()) return cancelling_ ? checkpoint_on_cancel_ : options_.checkpoint_at_end;
  const int32_t every = options_.checkpoint_every;
  if (every > 0 && progress_.step % every == 0) return true;
  constexpr int64_t kSecond = 1'000'000'000;
  return options_.checkpoint_every_seconds > 0 &&
         (now_ns - saved_ns_) / kSecond >= options_.checkpoint_every_seconds;
}

bool TrainProgram::SampleIsDue() const {
  return !cancelling_ && options_.sample.tokens > 0 && !options_.sample.prompt.empty();
}

std::optional<Deed> TrainProgram::StartPart(std::unique_ptr<Program> part, int64_t now_ns) {
  part_ = std::move(part);
  part_->Begin(progress_, now_ns);
  return part_->Next(now_ns);
}

Round TrainProgram::NextStep() {
  Round round;
  round.start.set_mode(proto::STEP_MODE_TRAIN);
  const int64_t step = progress_.step + 1;
  round.start.set_step(step);
  round.start.set_num_microbatches(options_.num_microbatches);
  round.start.set_learning_rate(options_.learning_rate(step));
  round.start.set_first_sample(progress_.step * options_.global_batch_size);
  running_order_ = static_cast<int32_t>(order_);
  round.start.set_order(running_order_);
  return round;
}

Result<Verdict> TrainProgram::Decide(std::vector<proto::Vote> votes) {
  if (part_) return part_->Decide(std::move(votes));
  ASSIGN_OR_RETURN(decided_, AddLosses(votes, options_.num_microbatches * options_.data_parallel,
                                       options_.context_parallel));
  ASSIGN_OR_RETURN(const double sum_norm, GradientNorm(votes, options_.num_parameters));
  const int64_t step = progress_.step + 1;
  if (!decided_.finite) {
    return MakeError(ErrorCode::kFailed,
                     "step {}: loss or gradient is not finite (loss {}); the step was dropped: "
                     "lower optimizer.lr or raise lr_scheduler.warmup_steps",
                     step, decided_.Loss().value_or(0));
  }
  votes_ = std::move(votes);
  proto::Commit commit;
  commit.set_step(step);
  if (decided_.num_tokens == 0) return Verdict{.commit = std::move(commit)};  // T4
  decided_norm_ = sum_norm / static_cast<double>(decided_.num_tokens);
  commit.set_apply(true);
  commit.set_update(progress_.updates + 1);
  commit.set_gradient_factor(
      GradientFactor(decided_norm_, options_.grad_clip, decided_.num_tokens));
  commit.set_learning_rate(options_.learning_rate(step));
  return Verdict{.commit = std::move(commit)};
}

ProgramNews TrainProgram::Committed(int64_t took_ns) {
  ++progress_.step;
  ++(decided_.num_tokens > 0 ? progress_.updates : progress_.skipped_steps);
  progress_.tokens += decided_.num_tokens;
  evaluated_ = checkpointed_ = false;
  StepCommitted news;
  proto::StepMetrics& metrics = news.metrics;
  metrics.set_step(progress_.step);
  if (const auto loss = decided_.Loss()) {
    metrics.set_loss(*loss);
    metrics.set_grad_norm(decided_norm_);
  }
  metrics.set_lr(options_.learning_rate(progress_.step));
  metrics.set_tokens(progress_.tokens);
  metrics.set_step_tokens(decided_.num_tokens);
  const double seconds = static_cast<double>(took_ns) * 1e-9;
  metrics.set_step_seconds(seconds);
  metrics.set_tokens_per_second(static_cast<double>(decided_.num_tokens) / std::max(seconds, 1e-9));
  metrics.set_bubble_fraction(MeasuredBubble(votes_));
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
  metrics.set_data_seconds(data_ns * 1e-9 / static_cast<double>(votes_.size()));
  metrics.set_comm_seconds(message_ns * 1e-9 / static_cast<double>(votes_.size()));
  news.votes = std::exchange(votes_, {});
  return news;
}

void TrainProgram::Cancel(bool checkpoint) {
  cancelling_ = true;
  checkpoint_on_cancel_ = checkpoint;
  if (part_) part_->Cancel(checkpoint);
}

}  // namespace troupe
