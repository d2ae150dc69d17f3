#include "coordinator/cli/job_commands.h"

#include <unistd.h>

#include <chrono>
#include <thread>

#include "coordinator/cli/answer.h"
#include "coordinator/cli/find_coordinator.h"
#include "runtime/base/clock.h"
#include "runtime/base/standard_streams.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

// The jobs of all that were found; a job's number counts within its own coordinator.
int ShowJobsOnce(const JobsCommand& command) {
  const auto found = FindCoordinators(command);
  if (!found.ok()) return Fail(found.error());
  proto::ListJobsReply all;
  for (const FoundCoordinator& coordinator : *found) all.MergeFrom(coordinator.jobs);
  const int exit_code = PrintAnswer(JobsReport(all, command.output, SystemClock().WallUs()));
  if (command.output != OutputFormat::kText) return exit_code;
  for (const auto& host : all.hosts()) {
    Talk("host {}: {} of {} slots in use\n", host.name(), host.slots_used(), host.slots());
  }
  return exit_code;
}

}  // namespace

int ShowJobs(const JobsCommand& command) {
  if (command.watch_seconds <= 0) return ShowJobsOnce(command);
  const bool screen = ::isatty(STDOUT_FILENO) != 0;
  for (;;) {
    if (screen) (void)PrintData("\x1b[H\x1b[2J");
    if (const int failed = ShowJobsOnce(command); failed != 0) return failed;
    std::this_thread::sleep_for(std::chrono::duration<double>(command.watch_seconds));
  }
}

int ShowStatus(const JobsCommand& command) {
  const auto found = FindJob(command);
  if (!found.ok()) return Fail(found.error());
  ControlClient& client = *found->coordinator.client;
  proto::GetStatusRequest request;
  request.set_job(found->summary.job());
  request.set_why(command.why);
  const auto reply = client.GetStatus(request);
  if (!reply.ok()) return Fail(reply.error());
  return PrintAnswer(StatusReport(*reply, command.output));
}

int CancelJob(const JobsCommand& command) {
  const auto found = FindJob(command);
  if (!found.ok()) return Fail(found.error());
  proto::CancelRequest request;
  request.set_job(found->summary.job());
  request.set_checkpoint(!command.kill);
  request.set_kill(command.kill);
  const auto reply = found->coordinator.client->Cancel(request);
  if (!reply.ok()) return Fail(reply.error());
  return PrintAnswer(CancelReport(found->summary.job(), *reply, command.output));
}

}  // namespace troupe
