// Stop: ends every job because the coordinator itself was told to end. No RPC: a signal's op.
#pragma once

#include "coordinator/job_life.h"
#include "coordinator/state.h"

namespace troupe {

// No new job is taken from now on. Called again, with order.kill, it ends at once what still runs.
void StopJobs(State& state, const StopOrder& order);

// Whether every job has ended and those who follow it know how.
bool AllJobsTold(const State& state);

}  // namespace troupe
