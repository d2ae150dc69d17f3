// Words for a schedule that has come to a stop: the cycle of waits, from any blocked rank to
// itself. Called by the simulator, and through it by the validator. Pure.
#pragma once

#include <optional>
#include <vector>

#include "actors/schedule/next_action.h"

namespace troupe {

// `blocked`: per rank its wait, nullopt where finished. `started`: per rank how many actions of its
// list have started (all of them done). At least one rank is blocked.
Error ExplainDeadlock(const Schedule& schedule, const std::vector<std::optional<Blocked>>& blocked,
                      const std::vector<size_t>& started);

// "row 3, cell 5 (2F3)": where the action stands in the CSV form, both from 1; blank cells are not
// counted, and an overlapped pair is one cell.
std::string CellName(const Schedule& schedule, PipelineRank rank, size_t index);

}  // namespace troupe
