#include "coordinator/ops/submit.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "actors/plan/job_plan.h"

namespace troupe {
namespace {

constexpr size_t kSubmissionsMax = 64;
constexpr const char* kNextJobName = "next_job";

std::string NextJobPath(const std::string& state_directory) {
  return JoinPath(state_directory, kNextJobName);
}

proto::SubmitReply ReplyTo(uint64_t job, const std::string& run_directory, bool deduplicated) {
  proto::SubmitReply reply;
  reply.set_job(job);
  reply.set_run_directory(run_directory);
  reply.set_deduplicated(deduplicated);
  return reply;
}

// The job that holds the folder, or is about to; 0: none.
uint64_t HolderOf(const State& state, const std::string& run_directory) {
  for (const auto& [id, job] : state.jobs) {
    if (!job->ended() && job->summary().run_directory() == run_directory) return id;
  }
  for (const auto& [id, submission] : state.submissions) {
    if (submission.request.run_directory() == run_directory) return id;
  }
  return 0;
}

// True: a retry, answered now or with the first one.
bool AnswerRetry(State& state, const std::string& submission_id,
                 Answer<proto::SubmitReply>& answer) {
  const auto known = state.by_submission.find(submission_id);
  if (submission_id.empty() || known == state.by_submission.end()) return false;
  if (const auto on_its_way = state.submissions.find(known->second);
      on_its_way != state.submissions.end()) {
    on_its_way->second.answers.push_back(std::move(answer));
    return true;
  }
  const auto& summary = state.jobs.at(known->second)->summary();
  answer(ReplyTo(known->second, summary.run_directory(), /*deduplicated=*/true));
  return true;
}

void Refuse(State& state, uint64_t id, const Error& error) {
  const auto found = state.submissions.find(id);
  if (found == state.submissions.end()) return;
  const Submission submission = std::move(found->second);
  state.submissions.erase(found);
  state.by_submission.erase(submission.request.submission_id());
  for (const auto& answer : submission.answers) answer(error);
}

void Accept(State& state, Seams seams, uint64_t id, std::shared_ptr<JobRecorder> recorder) {
  const auto found = state.submissions.find(id);
  if (found == state.submissions.end()) return;
  Submission submission = std::move(found->second);
  state.submissions.erase(found);
  const std::string run_directory = submission.request.run_directory();
  state.jobs[id] = std::make_unique<JobLife>(state, seams, id, std::move(submission.request),
                                             std::move(recorder));
  bool first = true;
  for (const auto& answer : submission.answers) {
    answer(ReplyTo(id, run_directory, /*deduplicated=*/!std::exchange(first, false)));
  }
  StartWhatFits(state);
}

// On the disk's stream. The number is on disk before anything that bears it.
Status TakeIn(FileSystem& files, const std::string& state_directory, uint64_t id,
              const proto::SubmitRequest& request, JobRecorder* recorder) {
  RETURN_IF_ERROR(files.CreateDirectories(state_directory));
  RETURN_IF_ERROR(
      WriteFileAtomically(files, NextJobPath(state_directory), fmt::format("{}\n", id + 1)));
  if (recorder != nullptr) return recorder->Open(request);
  return files.CreateDirectories(request.run_directory());
}

// Gives the job its folder and its recorder, on the disk's stream, and puts it in the queue.
void Store(State& state, Seams seams, const NewRecorder& new_recorder, uint64_t id) {
  const auto found = state.submissions.find(id);
  if (found == state.submissions.end()) return;
  const proto::SubmitRequest& request = found->second.request;
  std::shared_ptr<JobRecorder> recorder;
  if (new_recorder)
    recorder = new_recorder(request.run_directory(), [&state, id](auto& trouble) {
      const auto job = state.jobs.find(id);
      if (job != state.jobs.end()) job->second->Warn(trouble);
    });
  const auto stored = std::make_shared<Status>();
  seams.disk.Launch(
      [&files = seams.files, folder = state.options.state_directory, id, request, recorder,
       stored] { *stored = TakeIn(files, folder, id, request, recorder.get()); },
      [&state, seams, id, recorder, stored](const WorkTime&) {
        if (!stored->ok()) return Refuse(state, id, stored->error());
        Accept(state, seams, id, recorder);
      });
}

}  // namespace

void Submit(State& state, Seams seams, const NewRecorder& new_recorder,
            proto::SubmitRequest request, Answer<proto::SubmitReply> answer) {
  if (AnswerRetry(state, request.submission_id(), answer)) return;
  if (state.submissions.size() >= kSubmissionsMax) {
    return answer(MakeError(ErrorCode::kResourceExhausted,
                            "{} jobs are being taken in already: submit it again",
                            kSubmissionsMax));
  }
  const uint64_t id = state.next_job++;
  if (request.run_directory().empty()) {
    request.set_run_directory(JoinPath(state.options.state_directory,
                                       fmt::format("runs/{}-{}", request.spec().name(), id)));
  }
  if (const uint64_t holder = HolderOf(state, request.run_directory()); holder != 0) {
    return answer(MakeError(ErrorCode::kInvalidSpec,
                            "--run-dir {} is job {}'s: wait for its end, or give another --run-dir",
                            request.run_directory(), holder));
  }
  if (!request.submission_id().empty()) state.by_submission[request.submission_id()] = id;
  const auto spec = std::make_shared<const proto::JobSpec>(request.spec());
  Submission& submission = state.submissions[id];
  submission.request = std::move(request);
  submission.answers.push_back(std::move(answer));
  // The client has checked too; a foreign one may not have.
  const auto planned = std::make_shared<Status>();
  seams.planner.Launch(
      [spec, planned] {
        if (auto plan = MakeJobPlan(*spec); !plan.ok()) *planned = std::move(plan).error();
      },
      [&state, seams, new_recorder, id, planned](const WorkTime&) {
        if (!planned->ok()) return Refuse(state, id, planned->error());
        Store(state, seams, new_recorder, id);
      });
}

void RefuseSubmissions(State& state) {
  while (!state.submissions.empty()) {
    Refuse(state, state.submissions.begin()->first,
           MakeError(ErrorCode::kUnavailable, "the coordinator ends: submit the job to another"));
  }
}

Result<uint64_t> FirstJob(FileSystem& files, const std::string& state_directory) {
  const std::string path = NextJobPath(state_directory);
  if (!files.Exists(path)) return uint64_t{1};
  ASSIGN_OR_RETURN(const std::string text, files.ReadFile(path, 64));
  uint64_t first = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), first);
  if (error == std::errc() && first > 0 && std::string_view(end) == "\n") return first;
  return MakeError(ErrorCode::kCorrupt,
                   "{}: holds no job number: write one that no job of this folder had", path);
}

}  // namespace troupe
