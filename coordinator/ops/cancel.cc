#include "coordinator/ops/cancel.h"

#include "coordinator/job_life.h"

namespace troupe {

Result<proto::CancelReply> Cancel(State& state, const proto::CancelRequest& request) {
  const auto job = state.jobs.find(request.job());
  if (job == state.jobs.end()) {
    return MakeError(ErrorCode::kNotFound, "there is no job {}: `troupe ps` lists them",
                     request.job());
  }
  job->second->Cancel({.checkpoint = request.checkpoint(),
                       .kill = request.kill(),
                       .preempted = !request.cause().empty(),
                       .cause = request.cause()});
  proto::CancelReply reply;
  reply.set_state(job->second->state());
  return reply;
}

}  // namespace troupe
