#include "actors/schedule/activations.h"

#include <algorithm>

namespace troupe {

double PeakActivations(const Schedule& schedule, Rank rank, double held_for_weight) {
  const std::vector<Action>& actions = schedule.ActionsOf(rank);
  const double share = actions.empty() ? 0.0 : schedule.StageShare(actions.front().stage);
  double held = 0;
  double peak = 0;
  for (const Action& action : actions) {
    switch (action.kind) {
      case ActionKind::kForward:
        held += share;
        peak = std::max(peak, held);
        held -= schedule.forward_only ? share : 0;
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
  return peak;
}

}  // namespace troupe
