#include "actors/schedule/action_costs.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/random.h"

namespace troupe {
namespace {

int64_t TimeOf(const StageCost& cost, const Action& action) {
  switch (action.kind) {
    case ActionKind::kForward:
      return cost.forward_ns;
    case ActionKind::kBackwardInput:
      return cost.backward_input_ns;
    case ActionKind::kBackwardWeight:
      return cost.backward_weight_ns * (action.part + 1) / action.num_parts -
             cost.backward_weight_ns * action.part / action.num_parts;
    case ActionKind::kBackward:
      return cost.WholeBackwardNs();
    case ActionKind::kUnshard:
      return cost.unshard_ns;
    case ActionKind::kReduceGrad:
      return cost.reduce_grad_ns;
    default:
      return 0;
  }
}

// Counters of one (sample, stage, microbatch): three kinds, each with a factor and a hiccup.
constexpr uint64_t kDrawsPerCell = 8;
constexpr uint64_t kHiccupDraw = 4;

class NoisyCell {
 public:
  NoisyCell(const Noise& noise, uint64_t key, uint64_t cell, const StageCost& mean, bool straggles)
      : noise_(noise),
        key_(key),
        first_(cell * kDrawsPerCell),
        mean_(mean),
        slowness_(straggles ? noise.straggler_factor : 1) {}

  StageCost Draw() const {
    StageCost cost{.forward_pauses = mean_.forward_pauses,
                   .backward_pauses = mean_.backward_pauses,
                   .unshard_ns = mean_.unshard_ns,
                   .reduce_grad_ns = mean_.reduce_grad_ns};
    cost.forward_ns = Disturbed(mean_.forward_ns, 0, /*hiccups=*/true);
    cost.backward_input_ns = Disturbed(mean_.backward_input_ns, 1, /*hiccups=*/true);
    cost.backward_weight_ns = Disturbed(mean_.backward_weight_ns, 2, /*hiccups=*/false);
    if (mean_.backward_ns >= 0) {  // measured whole: disturbed as its halves are
      const auto halves = static_cast<double>(mean_.backward_input_ns + mean_.backward_weight_ns);
      const auto drawn = static_cast<double>(cost.backward_input_ns + cost.backward_weight_ns);
      cost.backward_ns = std::llround(static_cast<double>(mean_.backward_ns) *
                                      (halves > 0 ? drawn / halves : slowness_));
    }
    return cost;
  }

 private:
  int64_t Disturbed(int64_t mean_ns, uint64_t kind, bool hiccups) const {
    double time = static_cast<double>(mean_ns) * slowness_;
    if (noise_.sigma > 0) {
      const double normal = NormalAt(key_, first_ + kind);
      time *= std::exp(noise_.sigma * normal - noise_.sigma * noise_.sigma / 2);
    }
    if (hiccups && noise_.hiccup_rate > 0 &&
        UniformAt(key_, first_ + kHiccupDraw + kind) < noise_.hiccup_rate) {
      time += noise_.hiccup_size * static_cast<double>(mean_.forward_ns);
    }
    return std::llround(time);
  }

  const Noise& noise_;
  uint64_t key_;
  uint64_t first_;
  const StageCost& mean_;
  double slowness_;
};

}  // namespace

CostModel CostModel::Uniform(const Schedule& schedule, const StageCost& whole_share,
                             int64_t link_latency_ns) {
  CostModel costs{.stages = {}, .link_latency_ns = link_latency_ns};
  for (const double share : schedule.StageShares()) {
    const auto part = [share](int64_t whole_ns) {
      return whole_ns < 0 ? whole_ns : std::llround(static_cast<double>(whole_ns) * share);
    };
    const auto pauses = [share](const ActionPauses& whole) {
      return ActionPauses{
          .count = static_cast<int32_t>(std::lround(static_cast<double>(whole.count) * share)),
          .each_ns = whole.each_ns};
    };
    costs.stages.push_back({.forward_ns = part(whole_share.forward_ns),
                            .backward_input_ns = part(whole_share.backward_input_ns),
                            .backward_weight_ns = part(whole_share.backward_weight_ns),
                            .backward_ns = part(whole_share.backward_ns),
                            .forward_pauses = pauses(whole_share.forward_pauses),
                            .backward_pauses = pauses(whole_share.backward_pauses),
                            .unshard_ns = part(whole_share.unshard_ns),
                            .reduce_grad_ns = part(whole_share.reduce_grad_ns)});
  }
  return costs;
}

int64_t CostModel::CostNs(const Action& action) const {
  return TimeOf(stages[static_cast<size_t>(action.stage.value)], action);
}

ActionTimes::ActionTimes(const Schedule& schedule, const CostModel& costs)
    : times_(costs.stages),
      link_latency_ns_(costs.link_latency_ns),
      pair_factor_(costs.pair_factor) {
  CHECK(static_cast<int>(costs.stages.size()) == schedule.num_stages,
        "{} stage costs for {} stages", costs.stages.size(), schedule.num_stages);
  has_pauses_ = std::ranges::any_of(costs.stages, [](const StageCost& cost) {
    return cost.forward_pauses.count > 0 || cost.backward_pauses.count > 0;
  });
}

ActionTimes::ActionTimes(const Schedule& schedule, const CostModel& costs, const Noise& noise,
                         uint64_t sample)
    : ActionTimes(schedule, costs) {
  if (!noise.any()) return;
  row_ = static_cast<size_t>(schedule.num_microbatches);
  times_.assign(costs.stages.size() * row_, {});
  const uint64_t key = RandomKey(noise.seed + sample * 0x9e3779b97f4a7c15ULL, "action times");
  for (size_t stage = 0; stage < costs.stages.size(); ++stage) {
    const bool straggles = schedule.placement[stage].value == noise.straggler_rank;
    for (size_t microbatch = 0; microbatch < row_; ++microbatch) {
      const size_t cell = stage * row_ + microbatch;
      times_[cell] = NoisyCell(noise, key, cell, costs.stages[stage], straggles).Draw();
    }
  }
}

int64_t ActionTimes::Ns(const Action& action) const {
  return TimeOf(Of(action.stage, action.microbatch), action);
}

ActionPauses ActionTimes::Pauses(const Action& action) const {
  const StageCost& cost = Of(action.stage, action.microbatch);
  switch (action.kind) {
    case ActionKind::kForward:
      return cost.forward_pauses;
    case ActionKind::kBackward:
    case ActionKind::kBackwardInput:
      return cost.backward_pauses;
    default:
      return {};
  }
}

int64_t ActionTimes::WorkNs(const Schedule& schedule, PipelineRank rank) const {
  int64_t work_ns = 0;
  for (const StageId stage : schedule.StagesOf(rank)) {
    const int first = schedule.FirstMicrobatch(stage).value;
    for (int m = first; m < first + schedule.MicrobatchesPerDirection(); ++m) {
      const StageCost& cost = Of(stage, MicrobatchId(m));
      work_ns += cost.forward_ns + cost.WholeBackwardNs();
    }
  }
  return work_ns;
}

}  // namespace troupe
