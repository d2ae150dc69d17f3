// A whole job of real processes on this host, one a rank: executors, schedule actor, routers and
// shared-memory transport as in a training run; only the stages' arithmetic is replaced by timed
// waits (timed_stage.h). The caller plays the host agent over the ranks' control sockets.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/schedule/action_costs.h"
#include "actors/schedule/execution_policy.h"
#include "actors/schedule/schedule.h"
#include "actors/schedule/timeline.h"
#include "runtime/base/result.h"

namespace troupe::testing {

struct ForkedJobOptions {
  Schedule train{};  // of one direction
  ExecutionPolicy policy{};
  std::vector<ActionTimes> steps{};  // how long each step's actions take
  int64_t message_bytes = int64_t{1} << 20;
  int64_t deadline_ms = 120'000;  // of the whole job
  // Where it is permitted, the ranks go before everything else on the host, as if it were theirs.
  bool real_time = false;
};

// What ran when in each step, on the host's steady clock; or the first error of a rank. The ranks
// are forks of the caller, which must have no other thread and must not have used UCX. None of them
// outlives the call.
Result<std::vector<Timeline>> RunForkedJob(const ForkedJobOptions& options);

}  // namespace troupe::testing
