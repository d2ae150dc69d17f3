#include "actors/schedule/lower_bound.h"

#include <algorithm>
#include <cmath>

namespace troupe {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// When one microbatch alone passes each stage, from the start of its direction.
struct Passage {
  std::vector<int64_t> forward_ns{};   // start of its Forward
  std::vector<int64_t> backward_ns{};  // start of its backward
};

// The earliest that a stage's input gradient can be there after its backward has started: a whole
// backward may be faster than an input half.
int64_t InputGradientNs(const StageCost& cost) {
  return cost.backward_ns >= 0 ? std::min(cost.backward_ns, cost.backward_input_ns)
                               : cost.backward_input_ns;
}

Passage PassageOf(const Schedule& shape, const CostModel& costs) {
  Passage passage{.forward_ns = std::vector<int64_t>(shape.num_stages, 0),
                  .backward_ns = std::vector<int64_t>(shape.num_stages, 0)};
  const auto hop_ns = [&](const StageEdge& edge) {
    return shape.RankOf(edge.from) == shape.RankOf(edge.to) ? 0 : costs.link_latency_ns;
  };
  // An edge leads to a later stage.
  for (int stage = 0; stage < shape.num_stages; ++stage) {
    for (const StageEdge& edge : shape.EdgesInto(StageId(stage))) {
      const int from = edge.from.value;
      passage.forward_ns[stage] =
          std::max(passage.forward_ns[stage],
                   passage.forward_ns[from] + costs.stages[from].forward_ns + hop_ns(edge));
    }
  }
  for (int stage = shape.num_stages - 1; stage >= 0; --stage) {
    const std::optional<StageEdge> edge = shape.EdgeFrom(StageId(stage));
    passage.backward_ns[stage] = edge ? passage.backward_ns[edge->to.value] +
                                            InputGradientNs(costs.stages[edge->to.value]) +
                                            hop_ns(*edge)
                                      : passage.forward_ns[stage] + costs.stages[stage].forward_ns;
  }
  return passage;
}

int64_t WorkNs(const StageCost& cost, bool forward_only) {
  const int64_t halves_ns = cost.backward_input_ns + cost.backward_weight_ns;
  return cost.forward_ns + (forward_only ? 0 : std::min(halves_ns, cost.WholeBackwardNs()));
}

// The longest that the rank can run Forwards before its first backward: the costliest ones, as many
// as the limit keeps.
int64_t ForwardsThatFitNs(const Schedule& shape, const CostModel& costs,
                          const std::vector<StageId>& stages, double activations_max) {
  std::vector<int64_t> forward_ns;
  for (const StageId stage : stages) {
    forward_ns.push_back(costs.stages[stage.value].forward_ns);
  }
  std::ranges::sort(forward_ns, std::greater<>());
  const int64_t per_stage = shape.MicrobatchesPerDirection();
  const double fit = activations_max / shape.StageShare(stages.front());
  int64_t left = static_cast<int64_t>(
      std::min(std::floor(fit + 1e-9), static_cast<double>(per_stage * std::ssize(stages))));
  int64_t sum_ns = 0;
  for (const int64_t one_ns : forward_ns) {
    const int64_t count = std::min(left, per_stage);
    sum_ns += count * one_ns;
    left -= count;
  }
  return sum_ns;
}

// What every action takes at least, overlapped with another or not.
CostModel AtLeast(const CostModel& costs) {
  CostModel least = costs;
  if (costs.pair_factor >= 1) return least;
  const auto shorten = [&costs](int64_t& time_ns) {
    // Down: a rounded-up time would be no bound.
    time_ns = static_cast<int64_t>(std::floor(static_cast<double>(time_ns) * costs.pair_factor));
  };
  for (StageCost& cost : least.stages) {
    shorten(cost.forward_ns);
    shorten(cost.backward_input_ns);
    shorten(cost.backward_weight_ns);
    if (cost.backward_ns >= 0) shorten(cost.backward_ns);
  }
  return least;
}

// `least`: the costs as AtLeast has them.
RankLowerBound BoundOf(const Schedule& shape, const CostModel& costs, const CostModel& least,
                       const Passage& passage, const std::vector<StageId>& stages,
                       double activations_max) {
  RankLowerBound bound{.head_ns = kNever, .first_backward_ns = kNever};
  std::vector<int64_t> head_ns(shape.num_directions, kNever);
  for (const StageId stage : stages) {
    int64_t& head = head_ns[shape.DirectionOf(stage)];
    head = std::min(head, passage.forward_ns[stage.value]);
    bound.head_ns = std::min(bound.head_ns, head);
    bound.work_ns += shape.MicrobatchesPerDirection() *
                     WorkNs(least.stages[stage.value], !shape.HasBackward(stage));
  }
  bound.makespan_ns = bound.head_ns + bound.work_ns;
  bound.span_ns = bound.work_ns;
  // Forwards that are followed by none fill no memory before the first backward.
  if (!std::ranges::all_of(stages, [&](StageId stage) { return shape.HasBackward(stage); })) {
    bound.first_backward_ns = 0;
    return bound;
  }
  int64_t own_way_ns = kNever;  // from the rank's own first Forward to its own first backward
  for (const StageId stage : stages) {
    const int64_t backward_ns = passage.backward_ns[stage.value];
    bound.first_backward_ns = std::min(bound.first_backward_ns, backward_ns);
    own_way_ns = std::min(own_way_ns, backward_ns - head_ns[shape.DirectionOf(stage)]);
  }
  const int64_t fit_ns = ForwardsThatFitNs(shape, costs, stages, activations_max);
  bound.makespan_ns += std::max<int64_t>(0, bound.first_backward_ns - bound.head_ns - fit_ns);
  bound.span_ns += std::max<int64_t>(0, own_way_ns - fit_ns);
  return bound;
}

}  // namespace

LowerBound LowerBoundOf(const Schedule& shape, const CostModel& costs, double activations_max) {
  CHECK(static_cast<int>(costs.stages.size()) == shape.num_stages, "{} stage costs for {} stages",
        costs.stages.size(), shape.num_stages);
  const CostModel least = AtLeast(costs);
  const Passage passage = PassageOf(shape, least);
  LowerBound bound;
  for (int rank = 0; rank < shape.num_ranks; ++rank) {
    const std::vector<StageId> stages = shape.StagesOf(PipelineRank(rank));
    bound.ranks.push_back(stages.empty()
                              ? RankLowerBound{}
                              : BoundOf(shape, costs, least, passage, stages, activations_max));
    bound.makespan_ns = std::max(bound.makespan_ns, bound.ranks.back().makespan_ns);
    bound.span_ns = std::max(bound.span_ns, bound.ranks.back().span_ns);
  }
  return bound;
}

}  // namespace troupe
