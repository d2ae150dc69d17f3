// `troupe schedule`: simulate, judge and draw pipeline schedules, ours and a user's own. From
// options to a request (schedule_request.h), to figures (actors/schedule), to a report
// (schedule_report.h): only the ends read files and print.
#pragma once

#include "coordinator/cli/schedule_request.h"

namespace troupe {

// Returns the process' exit code.
int ShowSchedule(const ScheduleFlags& options);

}  // namespace troupe
