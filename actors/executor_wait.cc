#include "actors/executor_wait.h"

#include <fmt/format.h>

#include <utility>

namespace troupe {

std::vector<std::string> StageNames(const Schedule& schedule, const std::vector<Rank>& pipeline) {
  std::vector<std::string> names;
  for (StageId stage{}; stage.value < schedule.num_stages; stage = stage.Next()) {
    const auto place = static_cast<size_t>(schedule.RankOf(stage).value);
    names.push_back(fmt::format("stage {} (rank {})", stage, pipeline.at(place)));
  }
  return names;
}

ExecutorWait::ExecutorWait(Options options)
    : options_(std::move(options)), decides_name_(fmt::format("rank {}", options_.decides)) {}

void ExecutorWait::ForInput(const ActorContext& context, const Blocked& blocked, int64_t step) {
  const bool of_own_work =
      blocked.reason == BlockReason::kRunning || blocked.reason == BlockReason::kSums;
  if (of_own_work || (blocked_ == blocked && record_.waiting())) return;
  blocked_ = blocked;
  if (since_ns_ == 0) since_ns_ = context.clock().NowNs();
  for_data_ = blocked.kind == InputKind::kData;
  if (blocked.reason == BlockReason::kChoice) {
    return Begin(context, {.owed = "the choice of its next action",
                           .from = decides_name_,
                           .step = step,
                           .from_rank = options_.decides.value});
  }
  Begin(context, {.activity = KindName(blocked.waiting.kind),
                  .owed = InputKindName(blocked.kind),
                  .from = options_.stage_names.at(static_cast<size_t>(blocked.owed_stage.value)),
                  .step = step,
                  .microbatch = blocked.microbatch.value,
                  .from_rank = for_data_ ? -1 : RankAt(blocked.owed_by).value});
}

void ExecutorWait::ForRoom(const ActorContext& context, const Transfer& output, int64_t step) {
  blocked_.reset();
  if (since_ns_ == 0) since_ns_ = context.clock().NowNs();
  for_data_ = false;
  const bool forward = output.kind == InputKind::kActivation;
  Begin(context, {.activity = KindName(forward ? ActionKind::kForward : ActionKind::kBackward),
                  .owed = "room for its output",
                  .from = options_.stage_names.at(static_cast<size_t>(output.to_stage.value)),
                  .step = step,
                  .microbatch = output.microbatch.value,
                  .from_rank = RankAt(output.to).value});
}

void ExecutorWait::End(const ActorContext& context, proto::Vote& vote) {
  record_.Reset();
  blocked_.reset();
  if (since_ns_ == 0) return;
  const int64_t waited_ns = context.clock().NowNs() - std::exchange(since_ns_, 0);
  if (for_data_) {
    vote.set_data_wait_ns(vote.data_wait_ns() + waited_ns);
  } else {
    vote.set_message_wait_ns(vote.message_wait_ns() + waited_ns);
  }
}

void ExecutorWait::ForStages(const ActorContext& context, std::string_view phase,
                             std::string_view owed, int64_t step) {
  Begin(context, {.activity = phase, .owed = owed, .from = "its stages", .step = step});
}

void ExecutorWait::ForSchedule(const ActorContext& context, std::string_view phase,
                               std::string_view owed, int64_t step) {
  Begin(
      context,
      {.activity = phase, .owed = owed, .from = "schedule (rank 0)", .step = step, .from_rank = 0});
}

void ExecutorWait::Begin(const ActorContext& context, WaitSubject subject) {
  subject.waiter = options_.waiter;
  subject.deadline_ms = options_.deadline_ms;
  record_ = context.BeginWait(subject);
}

}  // namespace troupe
