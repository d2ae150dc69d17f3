#include "coordinator/ops/submit.h"

#include <fmt/format.h>

#include "actors/plan/job_plan.h"

namespace troupe {

Result<proto::SubmitReply> Submit(State& state, Seams seams, const NewRecorder& new_recorder,
                                  proto::SubmitRequest request) {
  proto::SubmitReply reply;
  const auto known = state.by_submission.find(request.submission_id());
  if (!request.submission_id().empty() && known != state.by_submission.end()) {
    reply.set_job(known->second);
    reply.set_run_directory(state.jobs.at(known->second)->summary().run_directory());
    reply.set_deduplicated(true);
    return reply;
  }
  if (state.stopping) {
    return MakeError(ErrorCode::kUnavailable,
                     "the coordinator was told to end: submit it again later");
  }
  // The client has checked too; a foreign one may not have.
  RETURN_IF_ERROR(MakeJobPlan(request.spec()));
  const uint64_t id = state.next_job++;
  if (request.run_directory().empty()) {
    request.set_run_directory(JoinPath(state.options.state_directory,
                                       fmt::format("runs/{}-{}", request.spec().name(), id)));
  }
  RETURN_IF_ERROR(seams.files.CreateDirectories(request.run_directory()));
  std::unique_ptr<JobRecorder> recorder;
  if (new_recorder) {
    recorder = new_recorder(request.run_directory());
    RETURN_IF_ERROR(recorder->Open(request));
  }
  reply.set_job(id);
  reply.set_run_directory(request.run_directory());
  if (!request.submission_id().empty()) state.by_submission[request.submission_id()] = id;
  state.jobs[id] =
      std::make_unique<JobLife>(state, seams, id, std::move(request), std::move(recorder));
  StartWhatFits(state);
  return reply;
}

}  // namespace troupe
