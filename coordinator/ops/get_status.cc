#include "coordinator/ops/get_status.h"

#include "coordinator/job_life.h"

namespace troupe {

Result<proto::GetStatusReply> GetStatus(State& state, const proto::GetStatusRequest& request) {
  const auto job = state.jobs.find(request.job());
  if (job == state.jobs.end()) {
    return MakeError(ErrorCode::kNotFound, "there is no job {}: `troupe ps` lists them",
                     request.job());
  }
  proto::GetStatusReply reply;
  *reply.mutable_summary() = job->second->summary();
  for (const auto& edge : job->second->waits()) *reply.add_waits() = edge;
  if (request.why()) job->second->AskWaits();
  return reply;
}

}  // namespace troupe
