#include "actors/stage_actor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "runtime/actor/stream_wait.h"
#include "runtime/trace/span.h"

namespace troupe {
namespace {

// What a stage is asked for, as tasks of its stream.

struct StageAction {
  RunAction run{};
  int32_t microbatch = 0;  // as the model counts
  bool last_stage = false;
  int64_t last_row = -1;  // of the token whose follower is drawn; -1: another rank has it
  StageModel::NextPass next{};
};

Task<Status> ComputeForward(StageModel& model, const StageAction& action, ActionDone& done) {
  const RunAction& run = action.run;
  CHECK(run.data != nullptr, "{} has no microbatch", ToString(run.action));
  const Microbatch& data = *run.data;
  if (run.mode == proto::STEP_MODE_SAMPLE) {
    CO_ASSIGN_OR_RETURN(Buffer generated,
                        co_await model.GenerateForward(run.inputs[0], data, action.last_row));
    if (action.last_stage) {
      if (action.last_row < 0) co_return Status{};
      done.sampled_token = model.DrawToken(
          generated, run.temperature, static_cast<uint64_t>(run.sample_seed), run.sample_counter);
    } else {
      done.output = std::move(generated);
    }
    co_return Status{};
  }
  auto pass = run.mode == proto::STEP_MODE_EVAL
                  ? model.Evaluate(run.inputs[0], data)
                  : model.Forward(action.microbatch, run.inputs[0], data);
  CO_ASSIGN_OR_RETURN(StageModel::ForwardResult forward, co_await std::move(pass));
  done.output = std::move(forward.output);
  done.loss = forward.loss;
  co_return Status{};
}

Task<Status> Compute(StageModel& model, StageAction action, ActionDone& done) {
  const RunAction& run = action.run;
  model.AtStep(run.step);
  if (ReadsWeights(run.action.kind)) model.AtPass(run.action.microbatch.value, action.next);
  switch (run.action.kind) {
    case ActionKind::kForward:
      co_return co_await ComputeForward(model, action, done);
    case ActionKind::kBackward: {
      CO_ASSIGN_OR_RETURN(done.output, co_await model.Backward(action.microbatch, run.inputs[0]));
      co_return Status{};
    }
    case ActionKind::kBackwardInput: {
      CO_ASSIGN_OR_RETURN(done.output,
                          co_await model.BackwardInput(action.microbatch, run.inputs[0]));
      co_return Status{};
    }
    case ActionKind::kBackwardWeight:
      co_return co_await model.BackwardWeight(action.microbatch, run.action.part,
                                              run.action.num_parts);
    case ActionKind::kUnshard:
      co_return co_await model.Unshard();
    case ActionKind::kReshard:
      co_return co_await model.Reshard();
    case ActionKind::kReduceGrad:
      if (run.action.of_microbatch) co_return Status{};  // as its pieces are complete
      co_return co_await model.ReduceGradients();
    default:
      co_return MakeError(ErrorCode::kFailed, "{} is nothing that a stage runs",
                          ToString(run.action));
  }
}

Task<Status> TakeVote(StageModel& model, StageVote& vote) {
  model.FinishGradients();
  vote.norm_nodes = model.NormNodes();
  vote.finite = std::ranges::all_of(
      vote.norm_nodes, [](const proto::NormNode& node) { return std::isfinite(node.sum()); });
  co_return Status{};
}

// The copies of this rank are added first, then the ranks' sums.
Task<Status> Reduce(const StageReduction& reduction, int64_t step) {
  StageModel& first = *reduction.copies.front();
  const GroupPurpose purpose{.activity = "gradient reduction", .step = step};
  if (reduction.weights == SharedWeights::kStage) {
    co_return co_await first.AwaitRanksSums();
  }
  const std::span others = std::span(reduction.copies).subspan(1);
  for (StageModel* other : others) {
    first.AddSharedGradient(reduction.weights, other->SharedGradient(reduction.weights));
  }
  const TensorView sum = first.SharedGradient(reduction.weights);
  if (reduction.group != nullptr) {
    CO_RETURN_IF_ERROR(co_await reduction.group->AllReduce(
        {static_cast<uint8_t>(sum.dtype()), sum.data(), sum.num_elements()}, purpose));
  }
  for (StageModel* other : others) {
    const TensorView copy = other->SharedGradient(reduction.weights);
    std::memcpy(copy.data(), sum.data(), static_cast<size_t>(sum.num_bytes()));
  }
  co_return Status{};
}

// `read`: when nobody reads any more what changes; null: now. `wait`: until then; its actor's.
Task<Status> Apply(StageModel& model, AdamWOptions adamw, ApplyUpdate update,
                   std::shared_ptr<StreamEvent> read, WaitHandle& wait) {
  if (read) {
    co_await *read;
    co_await OnScheduler([&] { wait.Reset(); });
  }
  model.ApplyUpdate(adamw, update.apply);
  if (!update.apply) co_return Status{};
  co_return co_await model.ShareWeights({.activity = "weight gather", .step = update.step});
}

}  // namespace

StageActor::StageActor(StageOptions options, StageModel& model, Stream& stream)
    : options_(options),
      model_(model),
      stream_(stream),
      name_(fmt::format("stage {} (rank {})", options.stage, options.rank)) {
  StageSiblings siblings{.groups = options_.siblings, .rows = options_.rows};
  siblings.launch = [this](Task<Status> task, std::function<void()> done) {
    stream_.LaunchTask(scope_, std::move(task),
                       [this, done = std::move(done)](const WorkTime& time, const Status&) {
                         if (options_.trace.Covers(step_)) {
                           WriteSpan(SpanCategory::kWait, "gradient reduction", step_, -1, time);
                         }
                         done();
                       });
  };
  model_.Meet(std::move(siblings));
}

// The answer lives in shared memory: the task runs on the stream's thread, the sending on the
// actor's.
template <typename Answer, typename NewTask>
Status StageActor::Answering(Answer answer, NewTask new_task) {
  if (executor_.empty()) {
    return MakeError(ErrorCode::kFailed, "stage {}: work came before it met its executor",
                     options_.stage);
  }
  auto shared = std::make_shared<Answer>(std::move(answer));
  // An executor that has ended needs no answer.
  auto ended = [this, shared](const WorkTime& time, Status status) {
    if constexpr (requires { shared->time; }) shared->time = time;
    if constexpr (requires { Trace(*shared); }) Trace(*shared);
    shared->status = std::move(status);
    (void)executor_.Send(std::move(*shared));
  };
  if constexpr (requires { shared->action; }) {
    stream_.LaunchTask(scope_, new_task(model_, *shared), std::move(ended),
                       [this, action = shared->action](bool waits) {
                         (void)executor_.Send(ActionWaits{.action = action, .waits = waits});
                       });
  } else {
    stream_.LaunchTask(scope_, new_task(model_, *shared), std::move(ended));
  }
  return {};
}

Status StageActor::On(MeetExecutor meet) {
  executor_ = meet.executor;
  return {};
}

Status StageActor::On(RunAction run) {
  step_ = run.step;
  ActionDone done{.action = run.action, .round = run.round, .step = run.step, .mode = run.mode};
  const StageModel::NextPass next = NextAfter(run);
  const int64_t last_row = LastRowOf(run);
  StageAction action{.run = std::move(run),
                     .microbatch = done.action.microbatch.value - options_.first_microbatch,
                     .last_stage = options_.last,
                     .last_row = last_row,
                     .next = next};
  return Answering(std::move(done), [&action](StageModel& model, ActionDone& answer) {
    return Compute(model, std::move(action), answer);
  });
}

int64_t StageActor::LastRowOf(const RunAction& run) const {
  if (run.mode != proto::STEP_MODE_SAMPLE) return -1;
  const BatchArithmetic& batch = model_.options().shape.batch;
  const SequencePlace place = PlaceOf(batch.context, run.last_token, batch.seq_len);
  return place.index == options_.context_rank ? place.row : -1;
}

StageModel::NextPass StageActor::NextAfter(const RunAction& run) const {
  if (!run.next || options_.rows == nullptr) return {};
  return {.stage = options_.stage_of_rank(run.next->stage),
          .pass = {.direction = run.next->kind == ActionKind::kForward ? PassDirection::kForward
                                                                       : PassDirection::kBackward,
                   .step = run.step,
                   .microbatch = run.next->microbatch.value}};
}

Status StageActor::On(CollectVote collect) {
  return Answering(StageVote{.stage = options_.stage, .round = collect.round}, TakeVote);
}

Status StageActor::On(ReduceGradient reduce) {
  const auto reduction = options_.reductions.find(reduce.reduction);
  if (reduction == options_.reductions.end()) {
    return MakeError(ErrorCode::kFailed, "stage {}: gradient reduction {} is not its to start",
                     options_.stage, reduce.reduction);
  }
  return Answering(
      GradientReduced{.round = reduce.round, .reduction = reduce.reduction},
      [&](StageModel&, GradientReduced&) { return Reduce(reduction->second, reduce.step); });
}

Status StageActor::On(ApplyUpdate update) {
  AdamWOptions adamw = options_.adamw;
  adamw.lr = update.learning_rate;
  adamw.grad_factor = update.gradient_factor;
  adamw.step = update.number;
  std::shared_ptr<StreamEvent> read = AwaitReaders(update.step);
  return Answering(UpdateDone{.stage = options_.stage, .step = update.step},
                   [&](StageModel& model, UpdateDone&) {
                     return Apply(model, adamw, update, std::move(read), checkpoint_wait_);
                   });
}

std::shared_ptr<StreamEvent> StageActor::AwaitReaders(int64_t step) {
  if (options_.readers == nullptr) return nullptr;
  std::shared_ptr<StreamEvent> read = options_.readers->Ended();
  if (read == nullptr) return nullptr;
  owed_checkpoint_ =
      fmt::format("the checkpoint of step {} to be written", options_.readers->step());
  checkpoint_wait_ = context().BeginWait({.waiter = name_,
                                          .activity = "optimizer",
                                          .owed = owed_checkpoint_,
                                          .from = "the disk",
                                          .step = step,
                                          .deadline_ms = options_.disk_deadline_ms});
  return read;
}

void StageActor::Trace(const ActionDone& done) const {
  const bool trains = done.mode == proto::STEP_MODE_TRAIN;
  if (!trains && !options_.trace.Covers(done.step)) return;
  const std::string_view name = trains                               ? KindName(done.action.kind)
                                : done.mode == proto::STEP_MODE_EVAL ? "evaluation"
                                                                     : "sampling";
  const bool collective = IsCollective(done.action.kind);
  const int32_t microbatch = HasMicrobatch(done.action) ? done.action.microbatch.value : -1;
  WriteSpan(collective ? SpanCategory::kWait : SpanCategory::kCompute, name, done.step, microbatch,
            done.time);
}

void StageActor::Trace(const UpdateDone& done) const {
  if (options_.trace.Covers(done.step))
    WriteSpan(SpanCategory::kCompute, "optimizer", done.step, -1, done.time);
}

void StageActor::WriteSpan(SpanCategory category, std::string_view name, int64_t step,
                           int32_t microbatch, const WorkTime& time) const {
  SpanRecord record;
  record.name = InternTraceName(name);
  record.category = category;
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
