#include "coordinator/cli/run_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "coordinator/cli/client.h"
#include "coordinator/cli/find_coordinator.h"
#include "coordinator/cli/local_cluster.h"
#include "coordinator/cli/run_watch.h"
#include "coordinator/cli/validate_command.h"
#include "coordinator/job/job_file.h"
#include "coordinator/job/resume.h"
#include "coordinator/report/console.h"
#include "coordinator/report/metrics_json.h"
#include "coordinator/report/plan_report.h"
#include "runtime/base/clock.h"
#include "runtime/base/random.h"
#include "runtime/base/standard_streams.h"
#include "runtime/base/talk.h"
#include "runtime/format/checkpoint_manifest.h"

namespace troupe {
namespace {

constexpr int kJoinMs = 30'000;    // for the host agent that this starts
constexpr int kDaemonEndMs = 500;  // from its last word until it can be seen to have ended
constexpr int kQuickCallMs = 1000;
constexpr int kPauseMs = 10;

int Fail(const Error& error) {
  Talk("{}\n", error.message);
  return ExitCode(error.code);
}

int Cores() { return static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)); }

Result<LoadedJob> Load(const RunCommand& command) {
  JobReading reading = ReadJobOf(command);
  TalkWarnings(reading.job.warnings);
  if (!reading.errors.empty()) return Joined(reading.errors);
  return std::move(reading.job);
}

// runs/NAME/latest, where this was called.
std::string LatestLink(const std::string& name) {
  return (std::filesystem::current_path() / "runs" / name / "latest").string();
}

Result<std::string> NewRunDirectory(const std::string& name) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char stamp[32];
  std::strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &local);
  ASSIGN_OR_RETURN(const std::string here, CurrentFolder());
  return fmt::format("{}/runs/{}/{}-{:04x}", here, name, stamp, SystemRandom().NextU64() & 0xffff);
}

Result<std::string> RunDirectoryOf(const RunCommand& command, const std::string& name) {
  std::filesystem::path path = command.run_directory;
  if (path.empty()) return NewRunDirectory(name);
  if (path.is_relative()) {
    ASSIGN_OR_RETURN(const std::string here, CurrentFolder());
    path = here / path;
  }
  return path.lexically_normal().string();
}

Result<proto::SubmitReply> Send(ControlClient& client, const RunCommand& command,
                                const LoadedJob& job, const std::string& run_directory,
                                const std::string& resume_from) {
  proto::SubmitRequest request;
  request.set_resume_from(resume_from);
  request.set_submission_id(fmt::format("{:016x}", SystemRandom().NextU64()));
  *request.mutable_spec() = job.spec;
  request.set_run_directory(run_directory);
  request.set_job_file(job.text);
  request.set_effective_file(job.effective_text);
  request.set_command_line(command.command_line);
  request.set_latest(LatestLink(job.spec.name()));
  return client.Submit(request);
}

// Goes on from the newest checkpoint of the run directory: --resume alone, so it comes last.
std::string ResumeCommand(const RunCommand& command, const std::string& run_directory) {
  std::string line =
      fmt::format("{} run {}", ShellWord(command.program), ShellWord(command.job_file));
  for (const std::string& set : command.sets) line += " --set " + ShellWord(set);
  if (!command.coordinator.empty()) line += " --coordinator " + ShellWord(command.coordinator);
  return line + fmt::format(" --run-dir {} --resume", ShellWord(run_directory));
}

// Why the wait for a job ended without its result.
Error WhyLost(RunWatch& watch, LocalCluster* cluster, Error error) {
  if (const auto verdict = watch.verdict()) return *verdict;
  if (cluster == nullptr) return error;
  // Its connection ends a moment before it can be seen to have ended.
  for (int waited_ms = 0; waited_ms < kDaemonEndMs; waited_ms += kPauseMs) {
    const std::string end = cluster->CoordinatorEnd();
    if (!end.empty()) return {ErrorCode::kUnavailable, end};
    std::this_thread::sleep_for(std::chrono::milliseconds(kPauseMs));
  }
  return error;
}

// The end of a run that its coordinator did not live to record, as far as it is seen from here.
proto::JobResult LostResult(const std::string& run_directory, const Error& why) {
  proto::JobResult result;
  result.set_state(why.code == ErrorCode::kCancelled ? proto::JOB_STATE_CANCELLED
                                                     : proto::JOB_STATE_FAILED);
  result.set_exit_code(ExitCode(why.code));
  result.set_reason(why.message);
  result.set_run_directory(run_directory);
  const auto newest = FindNewestCheckpoint(SystemFiles(), JoinPath(run_directory, "checkpoints"));
  if (newest.ok() && newest->has_value()) {
    result.set_checkpoint((*newest)->folder);
    result.set_checkpoint_step((*newest)->manifest.step);
  }
  return result;
}

// What a client that follows holds: the daemons are null where they are not its own.
struct Followed {
  ControlClient& client;
  RunWatch& watch;
  LocalCluster* cluster = nullptr;
};

int FollowJob(const Followed& followed, const RunCommand& command, const LoadedJob& job,
              const proto::SubmitReply& reply, const std::string& address) {
  const std::string& run_directory = reply.run_directory();
  ConsoleOptions options;
  options.output = command.output;
  options.log_every = job.spec.log().every();
  options.num_workers = job.spec.resources().workers();
  options.steps =
      job.spec.train().stop_after() > 0 ? job.spec.train().stop_after() : job.spec.train().steps();
  options.bar = ShowsBar(stderr);
  options.ticks = true;
  options.trace = job.spec.log().trace().steps() > 0;
  options.tensorboard = job.spec.log().tensorboard();
  options.resume_command = ResumeCommand(command, run_directory);
  Console console(options, SystemClock(), stdout, stderr);
  followed.watch.Mind(&followed.client, address, reply.job(),
                      "from its newest checkpoint go on with: " + options.resume_command);
  int exit_code = ExitCode(ErrorCode::kUnavailable);
  const Status status = followed.client.Follow(reply.job(), [&](const proto::JobEvent& event) {
    followed.watch.Heard();
    console.Show(event);
    if (event.has_result()) exit_code = event.result().exit_code();
  });
  followed.watch.Mind(nullptr, address, 0, "");
  const auto verdict = followed.watch.verdict();
  const bool killed_by_watch = status.ok() && verdict && !followed.watch.stop_asked() &&
                               exit_code == ExitCode(ErrorCode::kCancelled);
  if (!status.ok() || killed_by_watch) {
    const Error why =
        killed_by_watch ? *verdict : WhyLost(followed.watch, followed.cluster, status.error());
    exit_code = Fail(why);
    const proto::JobResult result = LostResult(run_directory, why);
    if (followed.cluster != nullptr) {
      const Status recorded = WriteFileAtomically(
          SystemFiles(), JoinPath(run_directory, "result.json"), ResultJson(result) + "\n");
      if (!recorded.ok()) Talk("{}\n", recorded.error().message);
    }
    Talk("{}\n",
         GoOnText(result.checkpoint_step(), !result.checkpoint().empty(), options.resume_command));
  }
  return exit_code == 0 && !console.printed().ok() ? 1 : exit_code;
}

// A job submitted before the agent has joined would only be queued.
Status AwaitSlots(const RunWatch& watch, LocalCluster& cluster, int slots) {
  const auto client = ConnectControl(cluster.address(), kQuickCallMs);
  const int64_t until_ns = SystemClock().NowNs() + int64_t{kJoinMs} * 1'000'000;
  while (SystemClock().NowNs() < until_ns) {
    int offered = 0;
    if (const auto reply = client->ListJobs(); reply.ok()) {
      for (const auto& host : reply->hosts()) offered += host.slots();
    }
    if (offered >= slots) return {};
    if (watch.stop_asked()) return MakeError(ErrorCode::kCancelled, "stopped before anything ran");
    if (const std::string end = cluster.AgentEnd(); !end.empty()) {
      return Error{ErrorCode::kPeerDown, end};
    }
    if (const std::string end = cluster.CoordinatorEnd(); !end.empty()) {
      return Error{ErrorCode::kUnavailable, end};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(kPauseMs));
  }
  return MakeError(ErrorCode::kDeadlineExceeded,
                   "the host agent of this run has not joined within {} s: see logs/agent.log",
                   kJoinMs / 1000);
}

Result<std::string> Plan(const LoadedJob& job, OutputFormat output) {
  ASSIGN_OR_RETURN(const JobPlan plan, MakeJobPlan(job.spec));
  if (output == OutputFormat::kText) {
    return PlanText(job.spec, plan, {Cores(), ThisVectorIsa()}) + "\n";
  }
  const int indent = output == OutputFormat::kJson ? 2 : -1;
  return PlanJson(job.spec, plan, ThisVectorIsa(), indent) + "\n";
}

int Print(const std::string& text) {
  const Status printed = PrintData(text);
  return printed.ok() ? 0 : Fail(printed.error());
}

// Hands the job over and follows it.
int SubmitAndFollow(const Followed& followed, const RunCommand& command, const LoadedJob& job,
                    const std::string& run_directory, const std::string& resume_from,
                    const std::string& address) {
  auto reply = Send(followed.client, command, job, run_directory, resume_from);
  if (!reply.ok()) return Fail(WhyLost(followed.watch, followed.cluster, reply.error()));
  if (followed.cluster == nullptr) Talk("job {}\n", reply->job());
  return FollowJob(followed, command, job, *reply, address);
}

}  // namespace

std::string ShellWord(std::string_view word) {
  const auto is_plain = [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("_-+=,.:/@%").find(static_cast<char>(c)) != std::string_view::npos;
  };
  if (!word.empty() && std::ranges::all_of(word, is_plain)) return std::string(word);
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

int PlanJob(const RunCommand& command) {
  auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  const auto plan = Plan(*job, command.output);
  return plan.ok() ? Print(*plan) : Fail(plan.error());
}

int SubmitJob(const RunCommand& command) {
  auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  const auto run_directory = RunDirectoryOf(command, job->spec.name());
  if (!run_directory.ok()) return Fail(run_directory.error());
  auto resume_from = ResolveResume(SystemFiles(), *run_directory, *job);
  if (!resume_from.ok()) return Fail(resume_from.error());
  if (!command.follow) {
    const auto client = ConnectControl(command.coordinator);
    const auto reply = Send(*client, command, *job, *run_directory, *resume_from);
    return reply.ok() ? Print(SubmitReport(*reply, command.output)) : Fail(reply.error());
  }
  RunWatch watch(/*pauses=*/false);
  if (const Status started = watch.Start(); !started.ok()) return Fail(started.error());
  const auto client = ConnectControl(command.coordinator);
  return SubmitAndFollow({*client, watch}, command, *job, *run_directory, *resume_from,
                         command.coordinator);
}

int RunJob(const RunCommand& command) {
  auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  const auto plan = Plan(*job, OutputFormat::kText);
  if (!plan.ok()) return Fail(plan.error());
  Talk("{}", *plan);
  const auto run_directory = RunDirectoryOf(command, job->spec.name());
  if (!run_directory.ok()) return Fail(run_directory.error());
  auto resume_from = ResolveResume(SystemFiles(), *run_directory, *job);
  if (!resume_from.ok()) return Fail(resume_from.error());
  if (!resume_from->empty()) Talk("going on from {}\n", *resume_from);
  const bool starts_daemons = command.coordinator.empty();
  RunWatch watch(/*pauses=*/starts_daemons);
  if (const Status started = watch.Start(); !started.ok()) return Fail(started.error());
  if (!starts_daemons) {
    const auto client = ConnectControl(command.coordinator);
    return SubmitAndFollow({*client, watch}, command, *job, *run_directory, *resume_from,
                           command.coordinator);
  }
  const int slots = job->spec.resources().workers();
  auto cluster = LocalCluster::Start(*run_directory, *run_directory + "/logs", slots,
                                     [&watch] { return watch.stop_asked(); });
  if (!cluster.ok()) return Fail(cluster.error());
  watch.Mind(cluster->get());
  int exit_code = 0;
  if (const Status joined = AwaitSlots(watch, **cluster, slots); !joined.ok()) {
    exit_code = Fail(joined.error());
  } else {
    const std::string& address = (*cluster)->address();
    const auto client = ConnectControl(address);
    exit_code = SubmitAndFollow({*client, watch, cluster->get()}, command, *job, *run_directory,
                                *resume_from, address);
  }
  (*cluster)->Stop();  // while a second signal can still end this at once
  watch.Mind(nullptr);
  return exit_code;
}

}  // namespace troupe
