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

}  // namespace troupe
