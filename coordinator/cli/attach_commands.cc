// `troupe logs` and `troupe attach`: what a job says, as it says it.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "coordinator/cli/find_coordinator.h"
#include "coordinator/cli/run_command.h"
#include "coordinator/report/console.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

int Fail(const Error& error) {
  Talk("{}\n", error.message);
  return ExitCode(error.code);
}

// What is said when Ctrl-C ends the following; a signal handler may only write it.
std::string& DetachedSentence() {
  static auto& sentence = *new std::string;
  return sentence;
}

void Detach(int) {
  const std::string& sentence = DetachedSentence();
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, sentence.data(), sentence.size());
  ::_exit(ExitCode(ErrorCode::kCancelled));
}

void DetachOnSignal(const proto::JobSummary& job) {
  DetachedSentence() = fmt::format(
      "\ndetached: job {0} goes on; `troupe attach {0}` follows it again, `troupe cancel {0}` "
      "stops "
      "it\n",
      job.job());
  struct sigaction action {};
  action.sa_handler = &Detach;
  ::sigaction(SIGINT, &action, nullptr);
}

// "rank 2 | " before every line, where several ranks speak.
std::string Prefixed(const proto::LogLines& lines) {
  const std::string prefix =
      fmt::format("{}rank {} | ", lines.reference_run() ? "reference run's " : "", lines.rank());
  std::string text;
  const std::string& all = lines.lines();
  for (size_t start = 0; start < all.size();) {
    const size_t end = std::min(all.find('\n', start), all.size());
    text += prefix + all.substr(start, end - start) + "\n";
    start = end + 1;
  }
  return text;
}

}  // namespace

int ShowLogs(const JobsCommand& command) {
  const auto found = FindJob(command);
  if (!found.ok()) return Fail(found.error());
  const proto::JobSummary& job = found->summary;
  proto::ReadLogsRequest request;
  request.set_job(job.job());
  if (command.rank) request.set_rank(*command.rank);
  request.set_follow(command.follow);
  const bool several = !command.rank && job.workers() != 1;
  bool any = false;
  const Status read =
      found->coordinator.client->ReadLogs(request, [&](const proto::LogLines& lines) {
        any = true;
        const std::string text = several ? Prefixed(lines) : lines.lines();
        const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
        return std::fflush(stdout) == 0 && written;
      });
  if (!read.ok()) return Fail(read.error());
  if (!any) {
    Talk("nothing was printed by {}; events.jsonl in {} has what the job itself said\n",
         command.rank ? fmt::format("rank {} of job {}", *command.rank, job.job())
                      : fmt::format("the ranks of job {}", job.job()),
         job.run_directory());
  }
  return std::ferror(stdout) == 0 ? 0 : ExitCode(ErrorCode::kIo);
}

int AttachToJob(const JobsCommand& command) {
  const auto found = FindJob(command);
  if (!found.ok()) return Fail(found.error());
  const proto::JobSummary& job = found->summary;
  DetachOnSignal(job);
  Talk("following job {} from step {} on; Ctrl-C detaches, and the job goes on\n", job.job(),
       job.step());
  ConsoleOptions options;
  options.output = command.output;
  options.num_workers = job.workers();
  options.steps = job.steps();
  options.seen_through = job.step();
  options.bar = ShowsBar(stderr);
  options.ticks = true;
  options.resume_command =
      fmt::format("troupe run {0}/job.yaml --run-dir {0} --resume", ShellWord(job.run_directory()));
  Console console(options, SystemClock(), stdout, stderr);
  int exit_code = ExitCode(ErrorCode::kUnavailable);
  const Status followed =
      found->coordinator.client->Follow(job.job(), [&](const proto::JobEvent& event) {
        console.Show(event);
        if (event.has_result()) exit_code = event.result().exit_code();
      });
  if (!followed.ok()) return Fail(followed.error());
  return exit_code;
}

}  // namespace troupe
