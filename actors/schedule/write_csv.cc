#include "actors/schedule/communication.h"
#include "actors/schedule/csv.h"
#include "actors/schedule/deadlock.h"

namespace troupe {
namespace {

std::string ToCsvLists(const std::vector<std::vector<Action>>& lists) {
  std::string text;
  for (const std::vector<Action>& actions : lists) {
    // Rows end as Python's csv writer ends them. A rank without actions has two empty cells: a
    // blank last line would be no rank.
    text += (actions.empty() ? std::string(",") : ToCsvRow(actions)) + "\r\n";
  }
  return text;
}

// What of the action PyTorch's files lack; empty: nothing. Collectives are PyTorch's only in files
// with sends and receives.
std::string_view Lacks(const Action& action, bool with_communication) {
  if (action.num_parts > 1) return "parts of a weight gradient";
  if (action.of_microbatch) return "reductions of one microbatch's gradients";
  const bool alone = IsCollective(action.kind) && !with_communication;
  return alone ? "collectives without sends and receives" : "";
}

Status CheckPyTorchHas(const Schedule& schedule, bool with_communication) {
  constexpr std::string_view kRemedy = "write it in Troupe's own dialect";
  if (schedule.num_directions > 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "schedule {}: PyTorch's files have no two directions; {}", schedule.name,
                     kRemedy);
  }
  if (!schedule.edges.empty()) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "schedule {}: PyTorch's files have chains of stages only; {}", schedule.name,
                     kRemedy);
  }
  if (schedule.forward_only) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "schedule {}: PyTorch's files have no schedules without backward; {}",
                     schedule.name, kRemedy);
  }
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    const std::vector<Action>& actions = schedule.ranks[rank];
    for (size_t i = 0; i < actions.size(); ++i) {
      if (const std::string_view lacks = Lacks(actions[i], with_communication); !lacks.empty()) {
        return MakeError(ErrorCode::kInvalidSpec, "{}: PyTorch's files have no {}; {}",
                         CellName(schedule, PipelineRank(rank), i), lacks, kRemedy);
      }
    }
  }
  return {};
}

}  // namespace

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
    row += ")OVERLAP_F_B";
  }
  return row;
}

std::string ToCsv(const Schedule& schedule) { return ToCsvLists(schedule.ranks); }

Result<std::string> ToCsv(const Schedule& schedule, Dialect dialect) {
  if (dialect == Dialect::kPyTorch) {
    RETURN_IF_ERROR(CheckPyTorchHas(schedule, /*with_communication=*/false));
  }
  return ToCsv(schedule);
}

Result<std::string> ToCsvWithCommunication(const Schedule& schedule, Dialect dialect) {
  if (dialect == Dialect::kPyTorch) {
    RETURN_IF_ERROR(CheckPyTorchHas(schedule, /*with_communication=*/true));
  }
  const Waits waits = dialect == Dialect::kPyTorch ? Waits::kListed : Waits::kImplied;
  ASSIGN_OR_RETURN(const auto lists, WithCommunication(schedule, waits));
  return ToCsvLists(lists);
}

}  // namespace troupe
