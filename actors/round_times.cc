#include "actors/round_times.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace troupe {
namespace {

// Of those that are 0 or more.
int64_t MedianNs(const std::vector<int64_t>& times) {
  std::vector<int64_t> sorted;
  std::ranges::copy_if(times, std::back_inserter(sorted), [](int64_t ns) { return ns >= 0; });
  if (sorted.empty()) return 0;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::ranges::nth_element(sorted, middle);
  return *middle;
}

}  // namespace

void RoundTimes::Clear() {
  for (auto& [stage, kinds] : times_) {
    for (ByMicrobatch& times : kinds) times.clear();
  }
}

void RoundTimes::Add(const Action& action, int64_t took_ns) {
  ByMicrobatch& times = times_[action.stage][static_cast<size_t>(action.kind)];
  const auto microbatch = static_cast<size_t>(action.microbatch.value);
  if (times.size() <= microbatch) times.resize(microbatch + 1, kNotRun);
  times[microbatch] = std::max<int64_t>(times[microbatch], 0) + took_ns;
}

void RoundTimes::WriteTo(proto::Vote& vote) const {
  for (const auto& [stage, kinds] : times_) {
    if (std::ranges::all_of(kinds, &ByMicrobatch::empty)) continue;
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
