#include "actors/schedule/schedule.h"

#include <algorithm>

namespace troupe {

std::string_view InputKindName(InputKind kind) {
  switch (kind) {
    case InputKind::kActivation:
      return "activation";
    case InputKind::kGradient:
      return "gradient";
    case InputKind::kData:
      return "data";
  }
  return "input";
}

std::vector<StageId> Schedule::StagesOf(PipelineRank rank) const {
  std::vector<StageId> stages;
  for (int stage = 0; stage < num_stages; ++stage) {
    if (placement[stage] == rank) {
      stages.emplace_back(stage);
    }
  }
  return stages;
}

double Schedule::StageShare(StageId stage) const {
  const auto held = std::count(placement.begin(), placement.end(), RankOf(stage));
  return static_cast<double>(num_directions) / static_cast<double>(held);
}

std::vector<double> Schedule::StageShares() const {
  std::vector<int> held(static_cast<size_t>(num_ranks), 0);
  for (const PipelineRank rank : placement) ++held[static_cast<size_t>(rank.value)];
  std::vector<double> shares;
  shares.reserve(placement.size());
  for (const PipelineRank rank : placement) {
    shares.push_back(static_cast<double>(num_directions) / held[static_cast<size_t>(rank.value)]);
  }
  return shares;
}

bool Schedule::HasHalves() const {
  return std::ranges::any_of(ranks, [](const std::vector<Action>& actions) {
    return std::ranges::any_of(
        actions, [](const Action& action) { return action.kind == ActionKind::kBackwardInput; });
  });
}

bool Schedule::HasWeightParts() const {
  return std::ranges::any_of(ranks, [](const std::vector<Action>& actions) {
    return std::ranges::any_of(actions, [](const Action& action) { return action.num_parts > 1; });
  });
}

bool Schedule::ListsSums(StageId stage) const {
  return std::ranges::any_of(ActionsOf(RankOf(stage)), [stage](const Action& action) {
    return action.stage == stage && action.kind == ActionKind::kReduceGrad && !action.of_microbatch;
  });
}

void Schedule::AddListedEdges(StageId into, EdgeList& list) const {
  for (const StageEdge& edge : edges) {
    if (edge.to == into && list.size() < kStageInputsMax) list.push_back(edge);
  }
}

std::optional<StageEdge> Schedule::ListedEdgeFrom(StageId stage) const {
  const auto found = std::ranges::find(edges, stage, &StageEdge::from);
  return found == edges.end() ? std::nullopt : std::optional(*found);
}

namespace {

bool GivesInputGradient(ActionKind kind) {
  return kind == ActionKind::kBackwardInput || kind == ActionKind::kBackward;
}

Transfer ActivationAlong(const Schedule& schedule, const StageEdge& edge, MicrobatchId microbatch,
                         int input) {
  return {.kind = InputKind::kActivation,
          .from_stage = edge.from,
          .to_stage = edge.to,
          .from = schedule.RankOf(edge.from),
          .to = schedule.RankOf(edge.to),
          .microbatch = microbatch,
          .input = input};
}

Transfer GradientAlong(const Schedule& schedule, const StageEdge& edge, MicrobatchId microbatch) {
  return {.kind = InputKind::kGradient,
          .from_stage = edge.to,
          .to_stage = edge.from,
          .from = schedule.RankOf(edge.to),
          .to = schedule.RankOf(edge.from),
          .microbatch = microbatch};
}

}  // namespace

std::optional<Transfer> OutputOf(const Schedule& schedule, const Action& action) {
  if (action.kind == ActionKind::kForward) {
    const std::optional<StageEdge> edge = schedule.EdgeFrom(action.stage);
    if (!edge) return std::nullopt;
    int input = 0;
    for (const StageEdge& other : schedule.edges) {
      if (other.from == action.stage) break;
      if (other.to == edge->to) ++input;
    }
    return ActivationAlong(schedule, *edge, action.microbatch, input);
  }
  if (!GivesInputGradient(action.kind)) return std::nullopt;
  for (const StageEdge& edge : schedule.EdgesInto(action.stage)) {
    if (edge.carries_gradient) return GradientAlong(schedule, edge, action.microbatch);
  }
  return std::nullopt;
}

InputList InputsOf(const Schedule& schedule, const Action& action) {
  InputList inputs;
  if (action.kind == ActionKind::kForward) {
    for (const StageEdge& edge : schedule.EdgesInto(action.stage)) {
      const auto input = static_cast<int>(inputs.size());
      inputs.push_back(ActivationAlong(schedule, edge, action.microbatch, input));
    }
  } else if (GivesInputGradient(action.kind)) {
    const std::optional<StageEdge> edge = schedule.EdgeFrom(action.stage);
    if (edge && edge->carries_gradient) {
      inputs.push_back(GradientAlong(schedule, *edge, action.microbatch));
    }
  }
  return inputs;
}

std::vector<PipelineRank> LoopPlacement(int num_ranks, int num_stages) {
  std::vector<PipelineRank> placement;
  for (int stage = 0; stage < num_stages; ++stage) {
    placement.emplace_back(stage % num_ranks);
  }
  return placement;
}

std::vector<PipelineRank> VPlacement(int num_ranks, int num_stages) {
  std::vector<PipelineRank> placement;
  for (int stage = 0; stage < num_stages; ++stage) {
    const int along = stage % num_ranks;
    const bool back = stage / num_ranks % 2 == 1;
    placement.emplace_back(back ? num_ranks - 1 - along : along);
  }
  return placement;
}

std::vector<PipelineRank> BidirectionalPlacement(int num_ranks) {
  return VPlacement(num_ranks, 2 * num_ranks);
}

}  // namespace troupe
