#include "coordinator/cli/job_commands.h"

#include <chrono>
#include <thread>

#include "coordinator/cli/client.h"
#include "runtime/base/standard_streams.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

int Fail(const Error& error) {
  Talk("{}\n", error.message);
  return ExitCode(error.code);
}

int Print(const std::string& text) {
  const Status printed = PrintData(text);
  return printed.ok() ? 0 : Fail(printed.error());
}

}  // namespace

int ShowJobs(const JobsCommand& command) {
  const auto reply = ConnectControl(command.coordinator)->ListJobs();
  if (!reply.ok()) return Fail(reply.error());
  const int exit_code = Print(JobsReport(*reply, command.output));
  if (command.output != OutputFormat::kText) return exit_code;
  for (const auto& host : reply->hosts()) {
    Talk("host {}: {} of {} slots in use\n", host.name(), host.slots_used(), host.slots());
  }
  return exit_code;
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
  return Print(StatusReport(*reply, command.output));
}

int CancelJob(const JobsCommand& command) {
  proto::CancelRequest request;
  request.set_job(command.job);
  request.set_checkpoint(!command.kill);
  request.set_kill(command.kill);
  const auto reply = ConnectControl(command.coordinator)->Cancel(request);
  if (!reply.ok()) return Fail(reply.error());
  return Print(CancelReport(command.job, *reply, command.output));
}

}  // namespace troupe
