// What `troupe schedule` prints, in the form that was asked for. Pure.
#pragma once

#include <string>
#include <vector>

#include "coordinator/cli/schedule_request.h"

namespace troupe {

// `figures` are those of the request's schedules, in their order; texts end in a newline.

// The drawing to `columns`, and under it the figures; of several schedules a table.
std::string ScheduleText(const ScheduleRequest& request,
                         const std::vector<ScheduleFigures>& figures, int columns);
// One object; with compare {"schedules":[…]}. Times in the user's unit.
std::string ScheduleJson(const ScheduleRequest& request,
                         const std::vector<ScheduleFigures>& figures);
// The lists in the order that ran. kInvalidSpec where the dialect lacks something.
Result<std::string> ScheduleCsv(const ScheduleRequest& request, const ScheduleFigures& figures);
std::string ScheduleSvg(const ScheduleRequest& request,
                        const std::vector<ScheduleFigures>& figures);

// The names with constraint, placement and formulas.
Result<std::string> ScheduleList(ScheduleOutput output);

// What a reader of the figures should know beside them, a sentence each.
std::vector<std::string> ScheduleRemarks(const ScheduleRequest& request,
                                         const std::vector<ScheduleFigures>& figures);

}  // namespace troupe
