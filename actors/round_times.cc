#include "actors/round_times.h"

#include <algorithm>

namespace troupe {

void RoundTimes::Add(const Action& action, int64_t took_ns) {
  Kind& kind = times_[action.stage][static_cast<size_t>(action.kind)];
  kind.took_ns.push_back(took_ns);
  kind.num_parts = action.num_parts;
}

int64_t RoundTimes::Kind::MedianNs() const {
  if (took_ns.empty()) return 0;
  std::vector<int64_t> sorted = took_ns;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::ranges::nth_element(sorted, middle);
  return *middle * num_parts;
}

void RoundTimes::WriteTo(proto::Vote& vote) const {
  for (const auto& [stage, kinds] : times_) {
    const auto median_ns = [&kinds = kinds](ActionKind kind) {
      return kinds[static_cast<size_t>(kind)].MedianNs();
    };
    auto* times = vote.add_stage_times();
    times->set_stage(stage.value);
    times->set_forward_ns(median_ns(ActionKind::kForward));
    times->set_backward_ns(median_ns(ActionKind::kBackward));
    times->set_backward_input_ns(median_ns(ActionKind::kBackwardInput));
    times->set_backward_weight_ns(median_ns(ActionKind::kBackwardWeight));
  }
}

}  // namespace troupe
