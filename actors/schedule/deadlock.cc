#include "actors/schedule/deadlock.h"

#include <algorithm>

namespace troupe {
namespace {

// Whether `action` produces what `blocked` waits for.
bool Produces(const Schedule& schedule, const Action& action, const Blocked& blocked) {
  const auto output = OutputOf(schedule, action);
  return output && output->kind == blocked.kind && output->from_stage == blocked.owed_stage &&
         output->microbatch == blocked.microbatch;
}

// One wait of the cycle as a clause without its subject, "waits for 1F3, which rank 1 runs after
// 1B0"; sets `next` to the rank that the clause ends on.
std::string Clause(const Schedule& schedule, const Blocked& blocked,
                   const std::vector<size_t>& started, PipelineRank& next) {
  next = blocked.owed_by;
  if (blocked.reason == BlockReason::kOwnStage) {
    return fmt::format("waits for an action of stage {} that its own rank {} lists later",
                       blocked.owed_stage, next);
  }
  if (blocked.reason == BlockReason::kMemory) {
    return "has no room for another microbatch within its limit of activations";
  }
  const std::vector<Action>& actions = schedule.ActionsOf(next);
  const size_t head = started[next.value];
  const auto producer = std::ranges::find_if(
      actions, [&](const Action& action) { return Produces(schedule, action, blocked); });
  if (producer == actions.end()) {
    return fmt::format("waits for an {} of stage {} that no rank runs", InputKindName(blocked.kind),
                       blocked.owed_stage);
  }
  const auto index = static_cast<size_t>(producer - actions.begin());
  if (index < head) {
    return fmt::format(
        "waits for the output of {}, which rank {} holds back because every slot of the channel is "
        "taken by what is read later",
        ToString(*producer), next);
  }
  if (index == head) {
    return fmt::format("waits for {} on rank {}", ToString(*producer), next);
  }
  return fmt::format("waits for {}, which rank {} runs after {}", ToString(*producer), next,
                     ToString(actions[head]));
}

// Whether the clause about `blocked` ends the story: nothing further is owed by a blocked rank.
bool EndsChain(const Schedule& schedule, const Blocked& blocked,
               const std::vector<size_t>& started) {
  if (blocked.reason == BlockReason::kOwnStage || blocked.reason == BlockReason::kMemory) {
    return true;
  }
  const std::vector<Action>& actions = schedule.ActionsOf(blocked.owed_by);
  for (size_t i = 0; i < started[blocked.owed_by.value]; ++i) {
    if (blocked.reason == BlockReason::kInput && Produces(schedule, actions[i], blocked)) {
      return true;  // produced and held back
    }
  }
  return false;
}

}  // namespace

std::string CellName(const Schedule& schedule, PipelineRank rank, size_t index) {
  const std::vector<Action>& actions = schedule.ActionsOf(rank);
  int cell = 1;
  for (size_t i = 1; i <= index; ++i) {
    const bool same_cell = actions[i].pair != kNotPaired && actions[i].pair == actions[i - 1].pair;
    cell += same_cell ? 0 : 1;
  }
  return fmt::format("row {}, cell {} ({})", rank.value + 1, cell, ToString(actions[index]));
}

Error ExplainDeadlock(const Schedule& schedule, const std::vector<std::optional<Blocked>>& blocked,
                      const std::vector<size_t>& started) {
  // From any blocked rank the waits lead into the cycle; a second walk tells the cycle alone.
  const auto first =
      std::ranges::find_if(blocked, [](const auto& edge) { return edge.has_value(); });
  CHECK(first != blocked.end(), "no rank is blocked");
  PipelineRank rank(static_cast<int>(first - blocked.begin()));
  for (size_t i = 0; i < blocked.size(); ++i) {
    const std::optional<Blocked>& edge = blocked[rank.value];
    if (!edge || EndsChain(schedule, *edge, started) || !blocked[edge->owed_by.value]) {
      break;
    }
    rank = edge->owed_by;
  }
  std::string words;
  const PipelineRank start = rank;
  do {
    const Blocked& edge = *blocked[rank.value];
    PipelineRank next;
    words += fmt::format(
        "{}{} {}", words.empty() ? "" : "; ",
        words.empty() ? fmt::format("rank {} stands before {}, which", rank, ToString(edge.waiting))
                      : ToString(edge.waiting),
        Clause(schedule, edge, started, next));
    if (EndsChain(schedule, edge, started)) {
      break;
    }
    rank = next;
  } while (rank != start && blocked[rank.value]);
  return MakeError(ErrorCode::kInvalidSpec, "{}: deadlock: {}",
                   CellName(schedule, start, started[start.value]), words);
}

}  // namespace troupe
