#include "actors/stage_actor.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "runtime/trace/span.h"

namespace troupe {

StageActor::StageActor(StageOptions options, StageModel& model, Stream& stream)
    : options_(options), model_(model), stream_(stream) {}

// Launches `work(answer)` and sends the answer when it has run. The answer lives in shared memory:
// work runs on the stream's thread, the sending on the actor's.
template <typename Answer, typename Work>
Status StageActor::Answering(Answer answer, Work work) {
  if (executor_.empty()) {
    return MakeError(ErrorCode::kFailed, "stage {}: work came before it met its executor",
                     options_.stage);
  }
  auto shared = std::make_shared<Answer>(std::move(answer));
  stream_.Launch([shared, work = std::move(work)] { work(*shared); },
                 [this, shared](const WorkTime& time) {
                   if constexpr (requires { shared->time; }) shared->time = time;
                   if constexpr (requires { Trace(*shared); }) Trace(*shared);
                   // An executor that has ended needs no answer.
                   (void)executor_.Send(std::move(*shared));
                 });
  return {};
}

Status StageActor::On(MeetExecutor meet) {
  executor_ = meet.executor;
  return {};
}

Status StageActor::On(RunAction run) {
  ActionDone done{.action = run.action, .round = run.round, .step = run.step, .mode = run.mode};
  return Answering(std::move(done),
                   [this, run = std::move(run)](ActionDone& answer) { Compute(run, answer); });
}

void StageActor::Compute(const RunAction& run, ActionDone& done) {
  const int32_t microbatch = run.action.microbatch.value - options_.first_microbatch;
  switch (run.action.kind) {
    case ActionKind::kForward:
      ComputeForward(run, done);
      return;
    case ActionKind::kBackward:
      done.output = model_.Backward(microbatch, run.input);
      return;
    case ActionKind::kBackwardInput:
      done.output = model_.BackwardInput(microbatch, run.input);
      return;
    case ActionKind::kBackwardWeight:
      model_.BackwardWeight(microbatch, run.action.part, run.action.num_parts);
      return;
    default:
      CHECK(false, "stage {}: {} is no compute action", options_.stage, ToString(run.action));
  }
}

void StageActor::ComputeForward(const RunAction& run, ActionDone& done) {
  const std::span<const int32_t> tokens =
      run.tokens ? std::span<const int32_t>(*run.tokens) : std::span<const int32_t>();
  if (run.mode == proto::STEP_MODE_SAMPLE) {
    auto generated = model_.GenerateForward(run.input, tokens);
    if (options_.last) {
      done.sampled_token = model_.DrawToken(
          generated, run.temperature, static_cast<uint64_t>(run.sample_seed), run.sample_counter);
    } else {
      done.output = std::move(generated);
    }
    return;
  }
  auto forward = run.mode == proto::STEP_MODE_EVAL
                     ? model_.Evaluate(run.input, tokens)
                     : model_.Forward(run.action.microbatch.value - options_.first_microbatch,
                                      run.input, tokens);
  done.output = std::move(forward.output);
  done.loss_sum = forward.loss_sum;
  done.num_tokens = forward.num_tokens;
}

Status StageActor::On(CollectVote collect) {
  return Answering(
      StageVote{.stage = options_.stage, .round = collect.round}, [this](StageVote& vote) {
        model_.FinishGradients();
        vote.norm_nodes = model_.NormNodes();
        vote.finite = std::ranges::all_of(
            vote.norm_nodes, [](const proto::NormNode& node) { return std::isfinite(node.sum()); });
      });
}

Status StageActor::On(TakeGradient take) {
  return Answering(
      GradientReady{.stage = options_.stage, .round = take.round, .weights = take.weights},
      [this](GradientReady& ready) { ready.gradient = model_.SharedGradient(ready.weights); });
}

Status StageActor::On(MergeGradient merge) {
  return Answering(
      GradientMerged{.stage = options_.stage, .round = merge.round, .weights = merge.weights},
      [this, gradient = merge.gradient, replace = merge.replace](GradientMerged& merged) {
        if (replace) {
          model_.ReplaceSharedGradient(merged.weights, gradient);
        } else {
          model_.AddSharedGradient(merged.weights, gradient);
        }
      });
}

Status StageActor::On(ApplyUpdate update) {
  AdamWOptions adamw = options_.adamw;
  adamw.lr = update.learning_rate;
  adamw.grad_factor = update.gradient_factor;
  adamw.step = options_.earlier_updates + update.step;
  return Answering(
      UpdateDone{.stage = options_.stage, .step = update.step},
      [this, adamw, apply = update.apply](UpdateDone&) { model_.ApplyUpdate(adamw, apply); });
}

void StageActor::Trace(const ActionDone& done) const {
  const bool trains = done.mode == proto::STEP_MODE_TRAIN;
  if (!trains && !options_.trace.Covers(done.step)) return;
  const std::string_view name = trains                               ? KindName(done.action.kind)
                                : done.mode == proto::STEP_MODE_EVAL ? "evaluation"
                                                                     : "sampling";
  WriteSpan(name, done.step, done.action.microbatch.value, done.time);
}

void StageActor::Trace(const UpdateDone& done) const {
  if (options_.trace.Covers(done.step)) WriteSpan("optimizer", done.step, -1, done.time);
}

void StageActor::WriteSpan(std::string_view name, int64_t step, int32_t microbatch,
                           const WorkTime& time) const {
  static const uint32_t track = InternTraceName("compute");
  SpanRecord record;
  record.name = InternTraceName(name);
  record.category = SpanCategory::kCompute;
  record.track = track;
  record.rank = options_.rank.value;
  record.stage = static_cast<int16_t>(options_.stage.value);
  record.microbatch = microbatch;
  record.step = static_cast<int32_t>(step);
  record.start_ns = time.start_ns;
  record.end_ns = time.end_ns;
  record.cpu_ns = time.cpu_ns;
  ThreadTraceRing().Write(record);
}

}  // namespace troupe
