#include "coordinator/cli/job_commands.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "coordinator/cli/client.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

int Fail(const Error& error) {
  Talk("{}\n", error.message);
  return ExitCode(error.code);
}

}  // namespace

int ShowJobs(const JobsCommand& command) {
  const auto reply = ConnectControl(command.coordinator)->ListJobs();
  if (!reply.ok()) return Fail(reply.error());
  fmt::print("{}", JobsReport(*reply, command.output));
  if (command.output != OutputFormat::kText) return 0;
  for (const auto& host : reply->hosts()) {
    Talk("host {}: {} of {} slots in use\n", host.name(), host.slots_used(), host.slots());
  }
  return 0;
}

int ShowStatus(const JobsCommand& command) {
  constexpr auto kRanksAnswer = std::chrono::milliseconds(300);
  const auto client = ConnectControl(command.coordinator);
  proto::GetStatusRequest request;
  request.set_job(command.job);
  request.set_why(command.why);
  auto reply = client->GetStatus(request);
  if (command.why && reply.ok()) {  // the first one asked the ranks
    std::this_thread::sleep_for(kRanksAnswer);
    request.set_why(false);
    reply = client->GetStatus(request);
  }
  if (!reply.ok()) return Fail(reply.error());
  fmt::print("{}", StatusReport(*reply, command.output));
  return 0;
}

int CancelJob(const JobsCommand& command) {
  proto::CancelRequest request;
  request.set_job(command.job);
  request.set_checkpoint(!command.kill);
  request.set_kill(command.kill);
  const auto reply = ConnectControl(command.coordinator)->Cancel(request);
  if (!reply.ok()) return Fail(reply.error());
  fmt::print("{}", CancelReport(command.job, *reply, command.output));
  return 0;
}

}  // namespace troupe
