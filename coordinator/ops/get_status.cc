#include "coordinator/ops/get_status.h"

#include <utility>

#include "coordinator/job_life.h"

namespace troupe {

void GetStatus(State& state, const proto::GetStatusRequest& request,
               Answer<proto::GetStatusReply> answer) {
  const auto job = state.jobs.find(request.job());
  if (job == state.jobs.end()) {
    return answer(MakeError(ErrorCode::kNotFound, "there is no job {}: `troupe ps` lists them",
                            request.job()));
  }
  if (request.why()) return job->second->AskWaits(std::move(answer));
  proto::GetStatusReply reply;
  *reply.mutable_summary() = job->second->summary();
  answer(std::move(reply));
}

}  // namespace troupe
