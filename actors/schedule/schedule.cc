#include "actors/schedule/schedule.h"

#include <algorithm>

namespace troupe {

std::string_view InputKindName(InputKind kind) {
  switch (kind) {
    case InputKind::kActivation:
      return "activation";
    case InputKind::kGradient:
      return "gradient";
    case InputKind::kData:
      return "data";
  }
  return "input";
}

std::vector<StageId> Schedule::StagesOf(PipelineRank rank) const {
  std::vector<StageId> stages;
  for (int stage = 0; stage < num_stages; ++stage) {
    if (placement[stage] == rank) {
      stages.emplace_back(stage);
    }
  }
  return stages;
}

double Schedule::StageShare(StageId stage) const {
  const auto held = std::count(placement.begin(), placement.end(), RankOf(stage));
  return static_cast<double>(num_directions) / static_cast<double>(held);
}

std::vector<double> Schedule::StageShares() const {
  std::vector<int> held(static_cast<size_t>(num_ranks), 0);
  for (const PipelineRank rank : placement) ++held[static_cast<size_t>(rank.value)];
  std::vector<double> shares;
  shares.reserve(placement.size());
  for (const PipelineRank rank : placement) {
    shares.push_back(static_cast<double>(num_directions) / held[static_cast<size_t>(rank.value)]);
  }
  return shares;
}

std::optional<Transfer> OutputOf(const Schedule& schedule, const Action& action) {
  const bool forward = action.kind == ActionKind::kForward;
  const bool input_gradient =
      action.kind == ActionKind::kBackwardInput || action.kind == ActionKind::kBackward;
  if ((!forward && !input_gradient) || (forward && schedule.IsLastStage(action.stage)) ||
      (input_gradient && schedule.IsFirstStage(action.stage))) {
    return std::nullopt;
  }
  const StageId to(action.stage.value + (forward ? 1 : -1));
  return Transfer{.kind = forward ? InputKind::kActivation : InputKind::kGradient,
                  .from_stage = action.stage,
                  .to_stage = to,
                  .from = schedule.RankOf(action.stage),
                  .to = schedule.RankOf(to),
                  .microbatch = action.microbatch};
}

std::optional<Transfer> InputOf(const Schedule& schedule, const Action& action) {
  const bool forward = action.kind == ActionKind::kForward;
  const bool input_gradient =
      action.kind == ActionKind::kBackwardInput || action.kind == ActionKind::kBackward;
  if ((!forward && !input_gradient) || (forward && schedule.IsFirstStage(action.stage)) ||
      (input_gradient && schedule.IsLastStage(action.stage))) {
    return std::nullopt;
  }
  const StageId from(action.stage.value + (forward ? -1 : 1));
  return Transfer{.kind = forward ? InputKind::kActivation : InputKind::kGradient,
                  .from_stage = from,
                  .to_stage = action.stage,
                  .from = schedule.RankOf(from),
                  .to = schedule.RankOf(action.stage),
                  .microbatch = action.microbatch};
}

std::vector<PipelineRank> LoopPlacement(int num_ranks, int num_stages) {
  std::vector<PipelineRank> placement;
  for (int stage = 0; stage < num_stages; ++stage) {
    placement.emplace_back(stage % num_ranks);
  }
  return placement;
}

std::vector<PipelineRank> VPlacement(int num_ranks, int num_stages) {
  std::vector<PipelineRank> placement;
  for (int stage = 0; stage < num_stages; ++stage) {
    const int along = stage % num_ranks;
    const bool back = stage / num_ranks % 2 == 1;
    placement.emplace_back(back ? num_ranks - 1 - along : along);
  }
  return placement;
}

std::vector<PipelineRank> BidirectionalPlacement(int num_ranks) {
  return VPlacement(num_ranks, 2 * num_ranks);
}

}  // namespace troupe
