#include "actors/schedule/transforms.h"

#include <algorithm>

namespace troupe {

Schedule WithSplitBackward(const Schedule& schedule) {
  Schedule split = schedule;
  for (std::vector<Action>& actions : split.ranks) {
    std::vector<Action> halves;
    halves.reserve(actions.size() * 2);
    for (Action action : actions) {
      if (action.kind != ActionKind::kBackward) {
        halves.push_back(action);
        continue;
      }
      action.kind = ActionKind::kBackwardInput;
      halves.push_back(action);
      action.kind = ActionKind::kBackwardWeight;
      action.pair = kNotPaired;  // a pair is a Forward and what sends a gradient
      halves.push_back(action);
    }
    actions = std::move(halves);
  }
  return split;
}

Schedule WithWeightParts(const Schedule& schedule, int num_parts) {
  CHECK(num_parts >= 1 && num_parts <= 255, "{} parts of a weight gradient", num_parts);
  Schedule cut = schedule;
  for (std::vector<Action>& actions : cut.ranks) {
    std::vector<Action> parts;
    for (Action action : actions) {
      const bool whole = action.kind == ActionKind::kBackwardWeight && action.num_parts == 1;
      action.num_parts = whole ? static_cast<uint8_t>(num_parts) : action.num_parts;
      for (int part = 0; part < (whole ? num_parts : 1); ++part) {
        if (whole) action.part = static_cast<uint8_t>(part);
        parts.push_back(action);
      }
    }
    actions = std::move(parts);
  }
  return cut;
}

Schedule Frozen(const Schedule& schedule, const Timeline& timeline) {
  Schedule frozen = schedule;
  std::vector<std::vector<Bar>> bars(static_cast<size_t>(schedule.num_ranks));
  for (const Bar& bar : timeline.bars) {
    if (IsCompute(bar.action.kind)) bars[static_cast<size_t>(bar.rank.value)].push_back(bar);
  }
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    std::vector<Bar>& own = bars[static_cast<size_t>(rank)];
    std::ranges::stable_sort(own, {}, &Bar::start_ns);
    std::vector<Action>& actions = frozen.ranks[static_cast<size_t>(rank)];
    std::erase_if(actions, [](const Action& action) { return IsCompute(action.kind); });
    std::vector<Action> order;
    for (const Bar& bar : own) order.push_back(bar.action);
    // A pair that was torn apart, or ran the other way round, is none any more.
    for (size_t i = 0; i < order.size(); ++i) {
      const size_t first = order[i].kind == ActionKind::kForward ? i : i - 1;
      const bool together = first < own.size() && first + 1 < own.size() &&
                            own[first].action.kind == ActionKind::kForward &&
                            own[first].action.pair == own[first + 1].action.pair;
      if (!together) order[i].pair = kNotPaired;
    }
    actions.insert(actions.begin(), order.begin(), order.end());
  }
  return frozen;
}

}  // namespace troupe
