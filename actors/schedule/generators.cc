#include "actors/schedule/generators.h"

#include <algorithm>
#include <array>

namespace troupe {
namespace {

constexpr std::array<ScheduleInfo, 2> kKnown = {{
    {"1f1b", "pipedream-flush", "any p, any m, one chunk a rank", "(p-1)(f+b+w)",
     "min(m, p-r) on rank r"},
    {"gpipe", "afab", "any p, any m, one chunk a rank", "(p-1)(f+b+w)", "m"},
}};

// Lower case, hyphens for underscores.
std::string Normalised(std::string_view name) {
  std::string normal(name);
  for (char& c : normal) {
    c = c == '_' ? '-' : (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return normal;
}

Action Compute(StageId stage, ActionKind kind, int microbatch) {
  return Action{.stage = stage, .kind = kind, .microbatch = MicrobatchId(microbatch)};
}

std::vector<Action> GpipeList(StageId stage, int num_microbatches) {
  std::vector<Action> actions;
  for (const ActionKind kind : {ActionKind::kForward, ActionKind::kBackward}) {
    for (int microbatch = 0; microbatch < num_microbatches; ++microbatch) {
      actions.push_back(Compute(stage, kind, microbatch));
    }
  }
  return actions;
}

// Rank r runs p-1-r Forwards ahead, then one Forward and one Backward in turn.
std::vector<Action> OneForwardOneBackwardList(StageId stage, int num_ranks, int num_microbatches) {
  const int warmup = std::min(num_microbatches, num_ranks - 1 - stage.value);
  std::vector<Action> actions;
  for (int microbatch = 0; microbatch < warmup; ++microbatch) {
    actions.push_back(Compute(stage, ActionKind::kForward, microbatch));
  }
  for (int microbatch = 0; microbatch < num_microbatches; ++microbatch) {
    if (warmup + microbatch < num_microbatches) {
      actions.push_back(Compute(stage, ActionKind::kForward, warmup + microbatch));
    }
    actions.push_back(Compute(stage, ActionKind::kBackward, microbatch));
  }
  return actions;
}

}  // namespace

std::span<const ScheduleInfo> KnownSchedules() { return kKnown; }

Result<std::string> CanonicalScheduleName(std::string_view name) {
  const std::string normal = Normalised(name);
  std::string valid;
  for (const ScheduleInfo& known : kKnown) {
    if (normal == known.name || (!known.alias.empty() && normal == known.alias)) {
      return std::string(known.name);
    }
    valid += fmt::format("{}{} (= {})", valid.empty() ? "" : ", ", known.name, known.alias);
  }
  return MakeError(ErrorCode::kInvalidSpec, "schedule '{}' is not known; use one of {}", name,
                   valid);
}

Result<Schedule> Generate(const ScheduleSpec& spec) {
  ASSIGN_OR_RETURN(const std::string name, CanonicalScheduleName(spec.name));
  if (spec.num_ranks < 1 || spec.num_microbatches < 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "schedule {}: {} ranks and {} microbatches; both must be at least 1", name,
                     spec.num_ranks, spec.num_microbatches);
  }
  if (spec.chunks_per_rank != 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "schedule {} holds one model chunk a rank, not {}; set virtual_stages to 1",
                     name, spec.chunks_per_rank);
  }
  Schedule schedule{.name = name,
                    .num_ranks = spec.num_ranks,
                    .num_stages = spec.num_ranks,
                    .num_microbatches = spec.num_microbatches,
                    .placement = LoopPlacement(spec.num_ranks, spec.num_ranks),
                    .ranks = {}};
  for (int rank = 0; rank < spec.num_ranks; ++rank) {
    const StageId stage(rank);
    schedule.ranks.push_back(
        name == "gpipe" ? GpipeList(stage, spec.num_microbatches)
                        : OneForwardOneBackwardList(stage, spec.num_ranks, spec.num_microbatches));
  }
  return schedule;
}

Schedule GenerateForwardOnly(int num_ranks, std::vector<Rank> placement, int num_microbatches) {
  CHECK(num_ranks >= 1 && num_microbatches >= 1 && !placement.empty());
  Schedule schedule{.name = "forward-only",
                    .num_ranks = num_ranks,
                    .num_stages = static_cast<int>(placement.size()),
                    .num_microbatches = num_microbatches,
                    .forward_only = true,
                    .placement = std::move(placement),
                    .ranks = std::vector<std::vector<Action>>(num_ranks)};
  for (int stage = 0; stage < schedule.num_stages; ++stage) {
    std::vector<Action>& actions = schedule.ranks[schedule.placement[stage].value];
    for (int microbatch = 0; microbatch < num_microbatches; ++microbatch) {
      actions.push_back(Compute(StageId(stage), ActionKind::kForward, microbatch));
    }
  }
  return schedule;
}

Schedule GenerateForwardOnly(int num_ranks, int num_stages, int num_microbatches) {
  return GenerateForwardOnly(num_ranks, LoopPlacement(num_ranks, num_stages), num_microbatches);
}

}  // namespace troupe
