#include "actors/evaluate_program.h"

#include "runtime/base/check.h"

namespace troupe {

void EvaluateProgram::Begin(const TrainingProgress& progress, int64_t) {
  step_ = progress.step;
  round_ = 0;
  sums_ = {};
}

std::optional<Deed> EvaluateProgram::Next(int64_t) {
  if (round_ >= options_.rounds || cancelled_) return std::nullopt;
  Round round;
  round.start.set_mode(proto::STEP_MODE_EVAL);
  round.start.set_step(step_);
  round.start.set_num_microbatches(options_.num_microbatches);
  round.start.set_first_sample(round_ * options_.global_batch_size);
  return round;
}

Result<Verdict> EvaluateProgram::Decide(std::vector<proto::Vote> votes) {
  ASSIGN_OR_RETURN(const StepSums sums,
                   AddLosses(votes, options_.num_microbatches * options_.data_parallel,
                             options_.context_parallel));
  sums_.loss_sum += sums.loss_sum;
  sums_.num_tokens += sums.num_tokens;
  if (++round_ < options_.rounds) return Verdict{};
  proto::EvalMetrics metrics;
  metrics.set_step(step_);
  if (const auto loss = sums_.Loss()) metrics.set_val_loss(*loss);
  metrics.set_tokens(sums_.num_tokens);
  return Verdict{.news = std::move(metrics)};
}

ProgramNews EvaluateProgram::Committed(int64_t) {
  CHECK(false, "an evaluation commits nothing");
  return {};
}

}  // namespace troupe
