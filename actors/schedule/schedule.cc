#include "actors/schedule/schedule.h"

#include <algorithm>
#include <map>

namespace troupe {
namespace {

constexpr std::string_view kPairSuffix = "OVERLAP_F_B";

// One cell is a plain action or "(a;b)OVERLAP_F_B"; appends its actions.
Status ParseCell(std::string_view cell, int32_t& next_pair, std::vector<Action>& actions) {
  if (!cell.starts_with('(')) {
    ASSIGN_OR_RETURN(const Action action, ParseAction(cell));
    actions.push_back(action);
    return {};
  }
  const size_t close = cell.find(')');
  if (close == std::string_view::npos || cell.substr(close + 1) != kPairSuffix) {
    return MakeError(ErrorCode::kInvalidSpec, "pair '{}' does not end in ){}; write (0F2;0B1){}",
                     cell, kPairSuffix, kPairSuffix);
  }
  std::string_view inside = cell.substr(1, close - 1);
  for (bool more = true; more;) {
    const size_t separator = inside.find(';');
    ASSIGN_OR_RETURN(Action action, ParseAction(inside.substr(0, separator)));
    action.pair = next_pair;
    actions.push_back(action);
    more = separator != std::string_view::npos;
    inside.remove_prefix(more ? separator + 1 : inside.size());
  }
  ++next_pair;
  return {};
}

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// Takes the text up to `separator` off the front of `text`.
std::string_view TakeUntil(std::string_view& text, char separator) {
  const size_t end = text.find(separator);
  const std::string_view token = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return token;
}

Result<std::vector<Action>> ParseRow(std::string_view row, int row_number) {
  std::vector<Action> actions;
  int32_t next_pair = 0;
  for (int cell_number = 1; !row.empty(); ++cell_number) {
    const std::string_view cell = Trimmed(TakeUntil(row, ','));
    if (cell.empty()) {
      continue;
    }
    if (Status status = ParseCell(cell, next_pair, actions); !status.ok()) {
      return Context(fmt::format("row {}, cell {}", row_number, cell_number),
                     std::move(status).error());
    }
  }
  return actions;
}

// Fills num_stages, num_microbatches and placement from the actions.
Status InferShape(Schedule& schedule) {
  std::map<StageId, Rank> owners;
  int last_microbatch = -1;
  int64_t num_compute = 0;
  bool any_backward = false;
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    for (const Action& action : schedule.ranks[rank]) {
      if (IsCompute(action.kind)) {
        const auto [owner, is_new] = owners.emplace(action.stage, Rank(rank));
        if (owner->second.value != rank) {
          return MakeError(
              ErrorCode::kInvalidSpec,
              "row {}: {} runs stage {}, which row {} runs too; keep each stage on one "
              "rank",
              rank + 1, ToString(action), action.stage, owner->second.value + 1);
        }
        ++num_compute;
        last_microbatch = std::max(last_microbatch, action.microbatch.value);
        any_backward = any_backward || action.kind != ActionKind::kForward;
      }
    }
  }
  schedule.num_microbatches = last_microbatch + 1;
  schedule.forward_only = !any_backward;
  for (const auto& [stage, rank] : owners) {
    if (stage.value != schedule.num_stages) {
      return MakeError(
          ErrorCode::kInvalidSpec,
          "no row runs stage {}, but stage {} exists; number stages from 0 without gaps",
          schedule.num_stages, owners.rbegin()->first);
    }
    schedule.placement.push_back(rank);
    ++schedule.num_stages;
  }
  // Also keeps one absurd number in a file from sizing tables.
  if (int64_t{schedule.num_stages} * schedule.num_microbatches > num_compute) {
    return MakeError(
        ErrorCode::kInvalidSpec,
        "{} stages and microbatches up to {} need more than the {} compute actions of the "
        "file; number microbatches from 0 without gaps",
        schedule.num_stages, last_microbatch, num_compute);
  }
  if (schedule.num_stages == 0) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "the schedule has no compute action; give one row a rank");
  }
  return {};
}

}  // namespace

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

std::vector<StageId> Schedule::StagesOf(Rank rank) const {
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

std::optional<Transfer> OutputOf(const Schedule& schedule, const Action& action) {
  const bool forward = action.kind == ActionKind::kForward;
  const bool input_gradient =
      action.kind == ActionKind::kBackwardInput || action.kind == ActionKind::kBackward;
  if ((!forward && !input_gradient) || (forward && schedule.IsLastStage(action.stage)) ||
      (input_gradient && schedule.IsFirstStage(action.stage))) {
    return std::nullopt;
  }
  const StageId to(action.stage.value + (forward ? 1 : -1));
  return Transfer{.kind = forward ? InputKind::kActivation : InputKind::kGradient,
                  .from_stage = action.stage,
                  .to_stage = to,
                  .from = schedule.RankOf(action.stage),
                  .to = schedule.RankOf(to),
                  .microbatch = action.microbatch};
}

std::optional<Transfer> InputOf(const Schedule& schedule, const Action& action) {
  const bool forward = action.kind == ActionKind::kForward;
  const bool input_gradient =
      action.kind == ActionKind::kBackwardInput || action.kind == ActionKind::kBackward;
  if ((!forward && !input_gradient) || (forward && schedule.IsFirstStage(action.stage)) ||
      (input_gradient && schedule.IsLastStage(action.stage))) {
    return std::nullopt;
  }
  const StageId from(action.stage.value + (forward ? -1 : 1));
  return Transfer{.kind = forward ? InputKind::kActivation : InputKind::kGradient,
                  .from_stage = from,
                  .to_stage = action.stage,
                  .from = schedule.RankOf(from),
                  .to = schedule.RankOf(action.stage),
                  .microbatch = action.microbatch};
}

std::vector<Rank> LoopPlacement(int num_ranks, int num_stages) {
  std::vector<Rank> placement;
  for (int stage = 0; stage < num_stages; ++stage) {
    placement.emplace_back(stage % num_ranks);
  }
  return placement;
}

std::vector<Rank> VPlacement(int num_ranks, int num_stages) {
  std::vector<Rank> placement;
  for (int stage = 0; stage < num_stages; ++stage) {
    const int along = stage % num_ranks;
    const bool back = stage / num_ranks % 2 == 1;
    placement.emplace_back(back ? num_ranks - 1 - along : along);
  }
  return placement;
}

std::vector<Rank> BidirectionalPlacement(int num_ranks) {
  return VPlacement(num_ranks, 2 * num_ranks);
}

Schedule WithoutCommunication(const Schedule& schedule) {
  Schedule compute = schedule;
  for (std::vector<Action>& actions : compute.ranks) {
    std::erase_if(actions, [](const Action& action) { return IsCommunication(action.kind); });
  }
  return compute;
}

std::string ToCsvRow(const std::vector<Action>& actions) {
  std::string row;
  for (size_t i = 0; i < actions.size();) {
    row += i == 0 ? "" : ",";
    const int32_t pair = actions[i].pair;
    if (pair == kNotPaired) {
      row += ToString(actions[i++]);
      continue;
    }
    row += "(";
    for (const size_t first = i; i < actions.size() && actions[i].pair == pair; ++i) {
      row += (i == first ? "" : ";") + ToString(actions[i]);
    }
    row += fmt::format("){}", kPairSuffix);
  }
  return row;
}

std::string ToCsv(const Schedule& schedule) {
  std::string text;
  for (const std::vector<Action>& actions : schedule.ranks) {
    // Rows end as Python's csv writer ends them. A rank without actions has two empty cells: a
    // blank last line would be no rank.
    text += (actions.empty() ? std::string(",") : ToCsvRow(actions)) + "\r\n";
  }
  return text;
}

Result<Schedule> ParseCsv(std::string_view text, std::string_view name) {
  Schedule schedule;
  schedule.name = name;
  while (!text.empty()) {
    const std::string_view row = TakeUntil(text, '\n');
    if (text.empty() && Trimmed(row).empty()) {
      break;  // a blank last line is no rank
    }
    ++schedule.num_ranks;
    auto actions = ParseRow(row, schedule.num_ranks);
    if (!actions.ok()) {
      return std::move(actions).error();
    }
    schedule.ranks.push_back(std::move(*actions));
  }
  RETURN_IF_ERROR(InferShape(schedule));
  return schedule;
}

}  // namespace troupe
