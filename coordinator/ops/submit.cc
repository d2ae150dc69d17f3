#include "coordinator/ops/submit.h"

#include <fmt/format.h>
#include <google/protobuf/util/message_differencer.h>

#include "coordinator/job/job_checks.h"
#include "coordinator/job/yaml_walker.h"

namespace troupe {
namespace {

// "modified: optimizer.lr: 0.0003 -> 0.001; added: name: "x"", in a line of bounded length.
std::string Difference(const proto::JobSpec& was, const proto::JobSpec& is) {
  constexpr size_t kBytesMax = 300;
  std::string lines;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&lines);
  if (differencer.Compare(was, is)) return "";
  while (lines.ends_with('\n')) lines.pop_back();
  for (size_t at = lines.find('\n'); at != std::string::npos; at = lines.find('\n', at)) {
    lines.replace(at, 1, "; ");
  }
  return Shown(lines, kBytesMax);
}

}  // namespace

Result<proto::SubmitReply> Submit(State& state, Seams seams, const NewRecorder& new_recorder,
                                  proto::SubmitRequest request) {
  // The client has checked too; a foreign one may not have.
  ASSIGN_OR_RETURN(*request.mutable_spec(), AcceptSpec(request.spec()));
  proto::SubmitReply reply;
  const auto known = state.by_submission.find(request.submission_id());
  if (!request.submission_id().empty() && known != state.by_submission.end()) {
    const JobLife& job = *state.jobs.at(known->second);
    if (const std::string difference = Difference(job.spec(), request.spec());
        !difference.empty()) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "submission {} is job {}, of another spec: {}: submit this one under an id "
                       "of its own",
                       Shown(request.submission_id()), known->second, difference);
    }
    reply.set_job(known->second);
    reply.set_run_directory(job.summary().run_directory());
    reply.set_deduplicated(true);
    return reply;
  }
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
