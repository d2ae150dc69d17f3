#include "coordinator/ops/stop.h"

#include <algorithm>

namespace troupe {

void StopJobs(State& state, const StopOrder& order) {
  state.stopping = true;
  for (auto& [id, job] : state.jobs) job->Cancel(order);
}

bool AllJobsTold(const State& state) {
  return std::ranges::all_of(state.jobs,
                             [](const auto& job) { return job.second->history().ended(); });
}

}  // namespace troupe
