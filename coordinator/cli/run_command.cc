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
#include "coordinator/cli/run_start.h"
#include "coordinator/cli/run_watch.h"
#include "coordinator/cli/validate_command.h"
#include "coordinator/job/job_file.h"
#include "coordinator/report/console.h"
#include "coordinator/report/memory_fit.h"
#include "coordinator/report/metrics_json.h"
#include "coordinator/report/plan_report.h"
#include "runtime/base/bytes_in_words.h"
#include "runtime/base/clock.h"
#include "runtime/base/host_memory.h"
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

Result<proto::SubmitReply> Send(ControlClient& client, const RunCommand& command,
                                const LoadedJob& job, const RunStart& start) {
  proto::SubmitRequest request;
  request.set_resume_from(start.resume_from);
  request.set_overwrite(start.use == FolderUse::kMoveAside);
  request.set_submission_id(fmt::format("{:016x}", SystemRandom().NextU64()));
  *request.mutable_spec() = job.spec;
  request.set_run_directory(start.run_directory);
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

// A plan, as it is to be printed, and whether this host has the memory for it.
struct PlanOnHost {
  std::string text{};
  std::optional<MemoryFit> fit{};  // absent: the ranks run elsewhere, or the memory is not known
};

Result<PlanOnHost> Plan(const LoadedJob& job, OutputFormat output, bool here) {
  ASSIGN_OR_RETURN(const JobPlan plan, MakeJobPlan(job.spec));
  PlanOnHost on_host;
  if (const auto memory = here ? ReadHostMemory(SystemFiles()) : std::nullopt) {
    on_host.fit = FitOnHost(job.spec, plan, ThisVectorIsa(), *memory);
  }
  if (output == OutputFormat::kText) {
    on_host.text = PlanText(job.spec, plan, {Cores(), ThisVectorIsa()});
    if (on_host.fit) on_host.text += FitText(*on_host.fit, plan.train.num_ranks);
    on_host.text += "\n";
    return on_host;
  }
  const int indent = output == OutputFormat::kJson ? 2 : -1;
  on_host.text =
      PlanJson(job.spec, plan, ThisVectorIsa(), indent, on_host.fit ? &*on_host.fit : nullptr) +
      "\n";
  return on_host;
}

// What does not fit this host at all is refused; what may not fit beside what else runs is said.
Status CheckAndSayFit(const PlanOnHost& plan) {
  if (!plan.fit) return {};
  RETURN_IF_ERROR(CheckFit(*plan.fit));
  if (plan.fit->fits_now()) return {};
  Talk("warning: {} are needed, {} are available now: the kernel may end the job\n",
       BytesInWords(static_cast<double>(plan.fit->needed_bytes())),
       BytesInWords(static_cast<double>(plan.fit->memory.available_bytes)));
  return {};
}

int Print(const std::string& text) {
  const Status printed = PrintData(text);
  return printed.ok() ? 0 : Fail(printed.error());
}

// Hands the job over and follows it.
int SubmitAndFollow(const Followed& followed, const RunCommand& command, const LoadedJob& job,
                    const RunStart& start, const std::string& address) {
  auto reply = Send(followed.client, command, job, start);
  if (!reply.ok()) return Fail(WhyLost(followed.watch, followed.cluster, reply.error()));
  if (followed.cluster == nullptr) Talk("job {}\n", reply->job());
  return FollowJob(followed, command, job, *reply, address);
}

// On daemons of its own, which write their logs into the run's folder: it is prepared.
int RunWithDaemons(const RunCommand& command, const LoadedJob& job, const RunStart& start,
                   RunWatch& watch) {
  const int slots = job.spec.resources().workers();
  auto cluster = LocalCluster::Start(start.run_directory, start.run_directory + "/logs", slots,
                                     [&watch] { return watch.stop_asked(); });
  if (!cluster.ok()) return Fail(cluster.error());
  watch.Mind(cluster->get());
  const CoordinatorFile announced(start.run_directory, (*cluster)->address());
  int exit_code = 0;
  if (const Status joined = AwaitSlots(watch, **cluster, slots); !joined.ok()) {
    exit_code = Fail(joined.error());
  } else {
    const std::string& address = (*cluster)->address();
    const auto client = ConnectControl(address);
    exit_code = SubmitAndFollow({*client, watch, cluster->get()}, command, job, start, address);
  }
  (*cluster)->Stop();  // while a second signal can still end this at once
  watch.Mind(nullptr);
  return exit_code;
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
  JobReading reading = ReadJobOf(command);
  TalkWarnings(reading.job.warnings);
  const std::vector<std::string> notes = JudgeResume(reading);
  if (!reading.errors.empty()) return Fail(Joined(reading.errors));
  for (const std::string& note : notes) Talk("{}\n", note);
  const auto plan = Plan(reading.job, command.output, /*here=*/true);
  if (!plan.ok()) return Fail(plan.error());
  const int printed = Print(plan->text);
  const Status fits = CheckAndSayFit(*plan);
  return fits.ok() ? printed : Fail(fits.error());
}

int SubmitJob(const RunCommand& command) {
  auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  const auto start = DecideStart(command, *job);
  if (!start.ok()) return Fail(start.error());
  if (!command.follow) {
    const auto client = ConnectControl(command.coordinator);
    const auto reply = Send(*client, command, *job, *start);
    return reply.ok() ? Print(SubmitReport(*reply, command.output)) : Fail(reply.error());
  }
  // Before the client: its threads inherit what signals are blocked.
  RunWatch watch(/*pauses=*/false);
  if (const Status started = watch.Start(); !started.ok()) return Fail(started.error());
  const auto client = ConnectControl(command.coordinator);
  return SubmitAndFollow({*client, watch}, command, *job, *start, command.coordinator);
}

int RunJob(const RunCommand& command) {
  auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  const bool starts_daemons = command.coordinator.empty();
  auto start = DecideStart(command, *job);
  if (!start.ok()) return Fail(start.error());
  const auto plan = Plan(*job, OutputFormat::kText, starts_daemons);
  if (!plan.ok()) return Fail(plan.error());
  // Judged before the plan is shown; what does not fit leaves an earlier run where it is.
  if (starts_daemons && (!plan->fit || plan->fit->fits())) {
    if (const Status prepared = PrepareRunFolder(*start); !prepared.ok()) {
      return Fail(prepared.error());
    }
  }
  Talk("{}", plan->text);
  if (const Status fits = CheckAndSayFit(*plan); !fits.ok()) return Fail(fits.error());
  RunWatch watch(/*pauses=*/starts_daemons);
  if (const Status started = watch.Start(); !started.ok()) return Fail(started.error());
  if (!starts_daemons) {
    const auto client = ConnectControl(command.coordinator);
    return SubmitAndFollow({*client, watch}, command, *job, *start, command.coordinator);
  }
  return RunWithDaemons(command, *job, *start, watch);
}

}  // namespace troupe
