// ListJobs: all jobs of this coordinator, and its hosts.
#pragma once

#include "coordinator/state.h"

namespace troupe {

proto::ListJobsReply ListJobs(const State& state);

}  // namespace troupe
