#include "actors/round_times.h"

#include <algorithm>
#include <vector>

namespace troupe {
namespace {

int64_t MedianNs(const std::map<MicrobatchId, int64_t>& times) {
  if (times.empty()) return 0;
  std::vector<int64_t> sorted;
  for (const auto& [microbatch, ns] : times) sorted.push_back(ns);
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::ranges::nth_element(sorted, middle);
  return *middle;
}

}  // namespace

void RoundTimes::Add(const Action& action, int64_t took_ns) {
  times_[action.stage][static_cast<size_t>(action.kind)][action.microbatch] += took_ns;
}

void RoundTimes::WriteTo(proto::Vote& vote) const {
  for (const auto& [stage, kinds] : times_) {
    const auto median_ns = [&kinds = kinds](ActionKind kind) {
      return MedianNs(kinds[static_cast<size_t>(kind)]);
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
