// The words of `troupe schedule`, with what its --help says of them.
#pragma once

#include <CLI/App.hpp>

#include "coordinator/cli/schedule_request.h"

namespace troupe {

// Both outlive the parsing. What is no number is refused there, all else by MakeScheduleRequest.
void AddScheduleFlags(CLI::App* verb, ScheduleFlags& options);

}  // namespace troupe
