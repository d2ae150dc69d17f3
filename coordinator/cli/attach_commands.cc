// `troupe logs` and `troupe attach`: what a job says, as it says it.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "coordinator/cli/answer.h"
#include "coordinator/cli/find_coordinator.h"
#include "coordinator/cli/run_command.h"
#include "coordinator/report/console.h"
#include "runtime/base/file_system.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

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

void DetachOnSignal(const JobsCommand& command, const proto::JobSummary& job) {
  std::string words = fmt::format("{}", job.job());
  if (!command.coordinator.empty()) words += " --coordinator " + ShellWord(command.coordinator);
  if (!command.run_directory.empty()) words += " --run-dir " + ShellWord(command.run_directory);
  DetachedSentence() = fmt::format(
      "\ndetached: job {0} goes on; `{1} attach {2}` follows it again, `{1} cancel {2}` stops it\n",
      job.job(), ShellWord(command.program), words);
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

// The job as it was submitted, --set included, lies in its folder. Its coordinator ends with it
// where it was the run's own.
std::string ResumeCommand(const JobsCommand& command, const std::string& coordinator,
                          const std::string& run_directory) {
  std::string line = fmt::format("{} run {}", ShellWord(command.program),
                                 ShellWord(JoinPath(run_directory, "job.effective.yaml")));
  if (!IsOfRun(coordinator, run_directory)) line += " --coordinator " + ShellWord(coordinator);
  return line + fmt::format(" --run-dir {} --resume", ShellWord(run_directory));
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
  int printed = 0;
  const Status read =
      found->coordinator.client->ReadLogs(request, [&](const proto::LogLines& lines) {
        any = true;
        printed = PrintAnswer(several ? Prefixed(lines) : lines.lines());
        return printed == 0;
      });
  if (!read.ok()) return Fail(read.error());
  if (!any) {
    Talk("nothing was printed by {}; events.jsonl in {} has what the job itself said\n",
         command.rank ? fmt::format("rank {} of job {}", *command.rank, job.job())
                      : fmt::format("the ranks of job {}", job.job()),
         job.run_directory());
  }
  return printed;
}

int AttachToJob(const JobsCommand& command) {
  const auto found = FindJob(command);
  if (!found.ok()) return Fail(found.error());
  const proto::JobSummary& job = found->summary;
  if (job.ended_wall_us() > 0) {
    Talk("job {} has ended\n", job.job());
  } else {
    DetachOnSignal(command, job);
    Talk("following job {} from step {} on; Ctrl-C detaches, and the job goes on\n", job.job(),
         job.step());
  }
  ConsoleOptions options;
  options.output = command.output;
  options.num_workers = job.workers();
  options.steps = job.steps();
  options.seen_through = job.step();
  options.seen_state = job.state();
  options.bar = ShowsBar(stderr);
  options.ticks = true;
  options.resume_command = ResumeCommand(command, found->coordinator.address, job.run_directory());
  Console console(options, SystemClock(), stdout, stderr);
  int exit_code = ExitCode(ErrorCode::kUnavailable);
  const Status followed =
      found->coordinator.client->Follow(job.job(), [&](const proto::JobEvent& event) {
        console.Show(event);
        if (event.has_result()) exit_code = event.result().exit_code();
      });
  if (!followed.ok()) return Fail(followed.error());
  return exit_code == 0 && !console.printed().ok() ? 1 : exit_code;
}

}  // namespace troupe
