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

namespace {

// The rank's compute actions in the order of its bars.
std::vector<Action> OrderOf(std::vector<Bar> bars) {
  std::ranges::stable_sort(bars, {}, &Bar::start_ns);
  std::vector<Action> order;
  for (const Bar& bar : bars) order.push_back(bar.action);
  // A pair that was torn apart, or ran the other way round, is none any more.
  for (size_t i = 0; i < order.size(); ++i) {
    const size_t first = order[i].kind == ActionKind::kForward ? i : i - 1;
    const bool together = first < bars.size() && first + 1 < bars.size() &&
                          bars[first].action.kind == ActionKind::kForward &&
                          bars[first].action.pair == bars[first + 1].action.pair;
    if (!together) order[i].pair = kNotPaired;
  }
  return order;
}

// The collectives of `list` among `order`.
std::vector<Action> WithCollectivesOf(const std::vector<Action>& list, std::vector<Action> order) {
  if (std::ranges::none_of(list, IsCollective, &Action::kind)) return order;
  const auto same = [](const Action& a, const Action& b) {
    return a.stage == b.stage && a.kind == b.kind && a.microbatch == b.microbatch;
  };
  std::vector<Action> merged;
  auto next = order.begin();
  for (size_t i = 0; i < list.size(); ++i) {
    if (!IsCollective(list[i].kind)) continue;
    const auto anchor = std::find_if(
        list.begin() + static_cast<std::ptrdiff_t>(i), list.end(), [](const Action& action) {
          return IsCompute(action.kind) && action.kind != ActionKind::kBackwardWeight;
        });
    const auto before =
        anchor == list.end()
            ? order.end()
            : std::find_if(next, order.end(), [&](const Action& a) { return same(a, *anchor); });
    merged.insert(merged.end(), next, before);
    next = before;
    merged.push_back(list[i]);
  }
  merged.insert(merged.end(), next, order.end());
  return merged;
}

}  // namespace

Schedule Frozen(const Schedule& schedule, const Timeline& timeline) {
  Schedule frozen = schedule;
  std::vector<std::vector<Bar>> bars(static_cast<size_t>(schedule.num_ranks));
  for (const Bar& bar : timeline.bars) {
    if (IsCompute(bar.action.kind)) bars[static_cast<size_t>(bar.rank.value)].push_back(bar);
  }
  for (size_t rank = 0; rank < bars.size(); ++rank) {
    frozen.ranks[rank] = WithCollectivesOf(schedule.ranks[rank], OrderOf(std::move(bars[rank])));
  }
  return frozen;
}

}  // namespace troupe
