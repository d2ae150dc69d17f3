#include "actors/schedule/activations.h"

#include <algorithm>

namespace troupe {

std::vector<double> ActivationsAlong(const Schedule& schedule, PipelineRank rank,
                                     double held_for_weight) {
  const std::vector<Action>& actions = schedule.ActionsOf(rank);
  const double share = actions.empty() ? 0.0 : schedule.StageShare(actions.front().stage);
  std::vector<double> along;
  along.reserve(actions.size());
  double held = 0;
  for (const Action& action : actions) {
    held += action.kind == ActionKind::kForward ? share : 0;
    along.push_back(held);
    switch (action.kind) {
      case ActionKind::kForward:
        held -= !schedule.HasBackward(action.stage) ? share : 0;
        break;
      case ActionKind::kBackward:
        held -= share;
        break;
      case ActionKind::kBackwardInput:
        held -= share * (1 - held_for_weight);
        break;
      case ActionKind::kBackwardWeight:
        held -= share * held_for_weight / action.num_parts;
        break;
      default:
        break;
    }
  }
  return along;
}

double PeakActivations(const Schedule& schedule, PipelineRank rank, double held_for_weight) {
  const std::vector<double> along = ActivationsAlong(schedule, rank, held_for_weight);
  return along.empty() ? 0 : *std::ranges::max_element(along);
}

int64_t PeakGathered(const Schedule& schedule, PipelineRank rank,
                     std::span<const int64_t> of_stage) {
  int64_t gathered = 0;
  int64_t most = 0;
  for (const Action& action : schedule.ActionsOf(rank)) {
    const int64_t stage = of_stage[static_cast<size_t>(action.stage.value)];
    gathered += action.kind == ActionKind::kUnshard   ? stage
                : action.kind == ActionKind::kReshard ? -stage
                                                      : 0;
    most = std::max(most, gathered);
  }
  return most;
}

}  // namespace troupe
