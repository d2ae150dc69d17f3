#include "actors/schedule/collective_check.h"

#include <utility>

#include "actors/schedule/deadlock.h"

namespace troupe {

std::string MicrobatchReason(const Schedule& schedule, const Action& action) {
  const int first = schedule.FirstMicrobatch(action.stage).value;
  const int end = first + schedule.MicrobatchesPerDirection();
  const bool takes_it = action.microbatch.value >= first && action.microbatch.value < end;
  if (takes_it) return "";
  return fmt::format("stage {} takes microbatches {} to {}", action.stage, first, end - 1);
}

CollectiveCheck::CollectiveCheck(const Schedule& schedule)
    : schedule_(schedule),
      stages_(static_cast<size_t>(schedule.num_stages)),
      cells_(stages_.size() * static_cast<size_t>(schedule.num_microbatches)) {}

void CollectiveCheck::MarkGradients(const Action& action) {
  CellOf(action).gradient = true;
  ++Of(action.stage).gradients;
}

std::string CollectiveCheck::Reason(const Action& action, size_t index) {
  Stage& stage = Of(action.stage);
  switch (action.kind) {
    case ActionKind::kUnshard:
      return UnshardReason(action, index, stage);
    case ActionKind::kReshard:
      return ReshardReason(action, stage);
    case ActionKind::kReduceGrad:
      return action.of_microbatch ? PartialSumReason(action, stage) : SumReason(action, stage);
    default:
      return WaitReason(action, stage);
  }
}

Status CollectiveCheck::Complete() const {
  for (StageId id{}; id.value < schedule_.num_stages; id = id.Next()) {
    if (const std::optional<size_t> unshard = Of(id).unshard) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "{}: the stage's parameters are still gathered at the end of the row; add "
                       "{}RESHARD",
                       CellName(schedule_, schedule_.RankOf(id), *unshard), id);
    }
  }
  return {};
}

std::string CollectiveCheck::UnshardReason(const Action& action, size_t index, Stage& stage) {
  if (stage.unshard) {
    return fmt::format(
        "the stage's parameters are gathered already; leave it out, or put {}RESHARD before it",
        action.stage);
  }
  stage.unshard = index;
  return "";
}

std::string CollectiveCheck::ReshardReason(const Action& action, Stage& stage) {
  if (!stage.unshard) {
    return fmt::format(
        "the stage's parameters are not gathered; leave it out, or put {}UNSHARD before it",
        action.stage);
  }
  stage.unshard.reset();
  return "";
}

// Of what needs all gradients of the stage.
std::string CollectiveCheck::GradientsReason(StageId stage) const {
  if (!schedule_.HasBackward(stage)) {
    return fmt::format("stage {} has no backward, and so no gradients; leave it out", stage);
  }
  if (Of(stage).gradients == schedule_.MicrobatchesPerDirection()) return "";
  return fmt::format("stage {} still has weight gradients after it", stage);
}

std::string CollectiveCheck::SumReason(const Action& action, Stage& stage) const {
  if (std::exchange(stage.reduced, true)) {
    return "this stage's gradients are reduced a second time; leave it out";
  }
  if (stage.reduced_in_parts) {
    return "this stage's gradients are reduced microbatch by microbatch; leave it out";
  }
  return GradientsReason(action.stage);
}

std::string CollectiveCheck::PartialSumReason(const Action& action, Stage& stage) {
  if (std::string why = MicrobatchReason(schedule_, action); !why.empty()) return why;
  Cell& cell = CellOf(action);
  if (stage.reduced || std::exchange(cell.reduced, true)) {
    return "this microbatch's gradients are reduced a second time; leave it out";
  }
  stage.reduced_in_parts = true;
  if (cell.gradient) return "";
  return fmt::format("it stands before the weight gradient of its microbatch, {0}B{1} or {0}W{1}",
                     action.stage, action.microbatch);
}

std::string CollectiveCheck::WaitReason(const Action& action, Stage& stage) const {
  if (!stage.reduced && !stage.reduced_in_parts) {
    return fmt::format(
        "no REDUCE_GRAD of its stage stands before it; add {}REDUCE_GRAD, or leave the wait out",
        action.stage);
  }
  if (std::exchange(stage.awaited, true)) {
    return "this stage's sums are waited for a second time; leave it out";
  }
  if (std::string why = GradientsReason(action.stage); !why.empty()) return why;
  if (schedule_.num_directions == 1) return "";
  // A stage's sums are those of its copy on another rank, too. Two ranks that each wait for a sum
  // which the other one begins later would wait for ever.
  for (const StageId other : schedule_.StagesOf(schedule_.RankOf(action.stage))) {
    if (!schedule_.HasBackward(other)) continue;
    const bool begun = Of(other).reduced || !schedule_.ListsSums(other);
    if (begun && GradientsReason(other).empty()) continue;
    return fmt::format(
        "in two directions ranks wait for each other's sums; put it after the last gradient and "
        "the "
        "REDUCE_GRAD of stage {}",
        other);
  }
  return "";
}

}  // namespace troupe
