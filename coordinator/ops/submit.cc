#include "coordinator/ops/submit.h"

#include <fmt/format.h>
#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "coordinator/job/job_checks.h"
#include "coordinator/job/yaml_walker.h"

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

// The job that holds the folder, or is about to; 0: none.
uint64_t HolderOf(const State& state, const std::string& run_directory) {
  for (const auto& [id, job] : state.jobs) {
    if (!job->ended() && job->summary().run_directory() == run_directory) return id;
  }
  for (const auto& [ticket, submission] : state.submissions) {
    if (submission.request.run_directory() == run_directory && submission.job != 0) {
      return submission.job;
    }
  }
  return 0;
}

// A submission that has come before: the spec it came with, the job, and where that is on its way.
struct Known {
  const proto::JobSpec* spec = nullptr;  // null: too long ago
  uint64_t job = 0;
  Submission* on_its_way = nullptr;
};
std::optional<Known> FindKnown(State& state, const std::string& submission_id) {
  if (submission_id.empty()) return {};
  for (auto& [ticket, submission] : state.submissions) {
    if (submission.job != 0 && submission.request.submission_id() == submission_id) {
      return Known{&submission.request.spec(), submission.job, &submission};
    }
  }
  const auto found = state.by_submission.find(submission_id);
  if (found == state.by_submission.end()) return {};
  return Known{state.jobs.at(found->second)->spec(), found->second};
}

// Takes the submission out of the list; nothing where the coordinator has refused it meanwhile.
std::optional<Submission> TakeOut(State& state, uint64_t ticket) {
  auto found = state.submissions.extract(ticket);
  if (found.empty()) return {};
  return std::move(found.mapped());
}

void Refuse(State& state, uint64_t ticket, const Error& error) {
  const std::optional<Submission> submission = TakeOut(state, ticket);
  if (!submission) return;
  for (const auto& answer : submission->answers) answer(error);
}

// A retry is answered now, or with the first one. True: this was one.
bool AnswerRetry(State& state, uint64_t ticket) {
  const proto::SubmitRequest& request = state.submissions.at(ticket).request;
  const std::optional<Known> known = FindKnown(state, request.submission_id());
  if (!known) return false;
  const std::string difference = known->spec ? Difference(*known->spec, request.spec()) : "";
  if (!difference.empty()) {
    Refuse(state, ticket,
           MakeError(ErrorCode::kInvalidSpec,
                     "submission {} is job {}, of another spec: {}: submit this one under an id of "
                     "its own",
                     Shown(request.submission_id()), known->job, difference));
    return true;
  }
  const Submission retry = *TakeOut(state, ticket);
  for (const auto& answer : retry.answers) {
    if (known->on_its_way != nullptr) {
      known->on_its_way->answers.push_back(answer);
    } else {
      answer(ReplyTo(known->job, state.jobs.at(known->job)->summary().run_directory(),
                     /*deduplicated=*/true));
    }
  }
  return true;
}

void Accept(State& state, Seams seams, uint64_t ticket, std::shared_ptr<JobRecorder> recorder) {
  std::optional<Submission> submission = TakeOut(state, ticket);
  if (!submission) return;
  const uint64_t id = submission->job;
  const std::string run_directory = submission->request.run_directory();
  const std::string submission_id = submission->request.submission_id();
  if (!submission_id.empty()) state.by_submission[submission_id] = id;
  state.jobs[id] = std::make_unique<JobLife>(state, seams, id, std::move(submission->request),
                                             std::move(recorder));
  bool first = true;
  for (const auto& answer : submission->answers) {
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

// Gives the job its number, its folder and its recorder, and puts it in the queue.
void Store(State& state, Seams seams, const NewRecorder& new_recorder, uint64_t ticket) {
  if (AnswerRetry(state, ticket)) return;
  Submission& submission = state.submissions.at(ticket);
  proto::SubmitRequest& request = submission.request;
  const uint64_t id = state.next_job++;
  if (request.run_directory().empty()) {
    request.set_run_directory(JoinPath(state.options.state_directory,
                                       fmt::format("runs/{}-{}", request.spec().name(), id)));
  }
  if (const uint64_t holder = HolderOf(state, request.run_directory()); holder != 0) {
    return Refuse(state, ticket,
                  MakeError(ErrorCode::kInvalidSpec,
                            "--run-dir {} is job {}'s: wait for its end, or give another --run-dir",
                            request.run_directory(), holder));
  }
  submission.job = id;
  std::shared_ptr<JobRecorder> recorder;
  if (new_recorder) {
    recorder = new_recorder(request.run_directory(), [&state, id](const std::string& trouble) {
      const auto job = state.jobs.find(id);
      if (job != state.jobs.end()) job->second->Warn(trouble);
    });
  }
  const auto stored = std::make_shared<Status>();
  seams.disk.Launch(
      [&files = seams.files, folder = state.options.state_directory, id, request, recorder,
       stored] { *stored = TakeIn(files, folder, id, request, recorder.get()); },
      [&state, seams, ticket, recorder, stored](const WorkTime&) {
        if (!stored->ok()) return Refuse(state, ticket, stored->error());
        Accept(state, seams, ticket, recorder);
      });
}

}  // namespace

void Submit(State& state, Seams seams, const NewRecorder& new_recorder,
            proto::SubmitRequest request, Answer<proto::SubmitReply> answer) {
  if (state.stopping) {
    return answer(MakeError(ErrorCode::kUnavailable,
                            "the coordinator was told to end: submit it again later"));
  }
  if (state.submissions.size() >= kSubmissionsMax) {
    return answer(MakeError(ErrorCode::kResourceExhausted,
                            "{} jobs are being taken in already: submit it again",
                            kSubmissionsMax));
  }
  const uint64_t ticket = state.next_submission++;
  // The client has checked too; a foreign one may not have.
  const auto spec = std::make_shared<Result<proto::JobSpec>>(std::move(*request.mutable_spec()));
  Submission& submission = state.submissions[ticket];
  submission.request = std::move(request);
  submission.answers.push_back(std::move(answer));
  seams.planner.Launch([spec] { *spec = AcceptSpec(**spec); },
                       [&state, seams, new_recorder, ticket, spec](const WorkTime&) {
                         const auto found = state.submissions.find(ticket);
                         if (found == state.submissions.end()) return;
                         if (!spec->ok()) return Refuse(state, ticket, spec->error());
                         *found->second.request.mutable_spec() = std::move(**spec);
                         Store(state, seams, new_recorder, ticket);
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
