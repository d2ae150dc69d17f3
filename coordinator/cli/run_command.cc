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

#include "coordinator/cli/answer.h"
#include "coordinator/cli/client.h"
#include "coordinator/cli/find_coordinator.h"
#include "coordinator/cli/local_cluster.h"
#include "coordinator/cli/run_end.h"
#include "coordinator/cli/run_start.h"
#include "coordinator/cli/run_watch.h"
#include "coordinator/cli/validate_command.h"
#include "coordinator/job/job_file.h"
#include "coordinator/report/console.h"
#include "coordinator/report/memory_fit.h"
#include "coordinator/report/plan_report.h"
#include "runtime/base/bytes_in_words.h"
#include "runtime/base/clock.h"
#include "runtime/base/host_memory.h"
#include "runtime/base/random.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int kJoinMs = 30'000;    // for the host agent that this starts
constexpr int kDaemonEndMs = 500;  // from its last word until it can be seen to have ended
constexpr int kQuickCallMs = 1000;
constexpr int kPauseMs = 10;

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

Error StoppedAtStart() { return MakeError(ErrorCode::kCancelled, "stopped before anything ran"); }

// Where signals ended a client that could not wait for its job's end.
Error Forced() { return MakeError(ErrorCode::kCancelled, "ended without waiting for what hangs"); }

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

// What a client that follows holds: the daemons are null where they are not its own.
struct Followed {
  ControlClient& client;
  RunWatch& watch;
  LocalCluster* cluster = nullptr;
};

// Until the job's end: its exit code. An error where this lost it.
Result<int> FollowJob(const Followed& followed, const RunCommand& command, const LoadedJob& job,
                      const proto::SubmitReply& reply, const std::string& address) {
  ConsoleOptions options;
  options.output = command.output;
  options.log_every = job.spec.log().every();
  options.num_workers = job.spec.resources().workers();
  options.steps =
      job.spec.train().stop_after() > 0 ? job.spec.train().stop_after() : job.spec.train().steps();
  options.bar = ShowsBar(stderr);
  options.ticks = true;
  options.resume_command = ResumeCommand(command, reply.run_directory());
  Console console(options, SystemClock(), stdout, stderr);
  RunWatch& watch = followed.watch;
  watch.Mind(&followed.client, address, reply.job());
  int exit_code = ExitCode(ErrorCode::kUnavailable);
  const Status status = followed.client.Follow(reply.job(), [&](const proto::JobEvent& event) {
    watch.Heard();
    if (event.has_result()) {
      watch.AtForcedEnd(nullptr);  // it is recorded
      exit_code = event.result().exit_code();
    }
    console.Show(event);
  });
  watch.Mind(nullptr, address, 0);
  const auto verdict = watch.verdict();
  if (!status.ok()) return WhyLost(watch, followed.cluster, status.error());
  if (verdict && !watch.stop_asked() && exit_code == ExitCode(ErrorCode::kCancelled)) {
    return *verdict;  // the watch had it killed
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
    if (watch.stop_asked()) return StoppedAtStart();
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

// Speeds of hops that the job does not have.
void WarnWithoutHops(const JobPlan& plan, const PlanMachine& machine) {
  const ContextParallel& context = plan.batch.context;
  if (!machine.speeds_known() || (context.shared() && context.method == ContextMethod::kRing)) {
    return;
  }
  Talk(
      "warning: --flops-per-second and --bytes-per-second have no effect: only ranks that "
      "share sequences by parallelism.cp_method = ring have hops (here {})\n",
      context.shared() ? fmt::format("it is {}", ContextMethodName(context.method))
                       : "parallelism.cp = 1");
}

// A plan, as it is to be printed, and whether this host has the memory for it.
struct PlanOnHost {
  std::string text{};
  std::optional<MemoryFit> fit{};  // absent: the ranks run elsewhere, or the memory is not known
};

Result<PlanOnHost> Plan(const LoadedJob& job, const RunCommand& command, OutputFormat output,
                        bool here) {
  const PlanMachine machine{.cores = Cores(),
                            .isa = ThisVectorIsa(),
                            .flops_per_second = command.flops_per_second,
                            .bytes_per_second = command.bytes_per_second};
  ASSIGN_OR_RETURN(const JobPlan plan, MakeJobPlan(job.spec));
  WarnWithoutHops(plan, machine);
  PlanOnHost on_host;
  if (const auto memory = here ? ReadHostMemory(SystemFiles()) : std::nullopt) {
    on_host.fit = FitOnHost(job.spec, plan, ThisVectorIsa(), *memory);
  }
  if (output == OutputFormat::kText) {
    on_host.text = PlanText(job.spec, plan, machine);
    if (on_host.fit) on_host.text += FitText(*on_host.fit, plan.mesh.num_ranks());
    on_host.text += "\n";
    return on_host;
  }
  const int indent = output == OutputFormat::kJson ? 2 : -1;
  on_host.text =
      PlanJson(job.spec, plan, machine, indent, on_host.fit ? &*on_host.fit : nullptr) + "\n";
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

// On a coordinator that others started.
int RunElsewhere(const RunCommand& command, const LoadedJob& job, const RunStart& start,
                 RunWatch& watch) {
  if (watch.stop_asked()) {
    (void)Fail(StoppedAtStart());
    return StoppedExitCode(watch.preempted());
  }
  const auto client = ConnectControl(command.coordinator);
  auto reply = Send(*client, command, job, start);
  if (!reply.ok()) return Fail(reply.error());
  Talk("job {}\n", reply->job());
  const RunEnd end{.run_directory = reply->run_directory(),
                   .resume_command = ResumeCommand(command, reply->run_directory())};
  watch.AtForcedEnd([end](bool preempted) { (void)TellLostEnd(end, Forced(), preempted); });
  const auto ended = FollowJob({*client, watch}, command, job, *reply, command.coordinator);
  watch.AtForcedEnd(nullptr);
  if (ended.ok()) return *ended;
  (void)Fail(ended.error());
  return TellLostEnd(end, ended.error(), watch.preempted());
}

Result<int> RunOn(LocalCluster& cluster, const RunCommand& command, const LoadedJob& job,
                  const RunStart& start, RunWatch& watch) {
  RETURN_IF_ERROR(AwaitSlots(watch, cluster, job.spec.resources().workers()));
  const auto client = ConnectControl(cluster.address());
  const auto reply = Send(*client, command, job, start);
  if (!reply.ok()) return WhyLost(watch, &cluster, reply.error());
  return FollowJob({*client, watch, &cluster}, command, job, *reply, cluster.address());
}

// Starts the daemons and stops them. An error is said already.
Result<int> RunOnDaemons(const RunCommand& command, const LoadedJob& job, const RunStart& start,
                         RunWatch& watch) {
  const std::string& folder = start.run_directory;
  const auto cluster =
      LocalCluster::Start(folder, JoinPath(folder, "logs"), job.spec.resources().workers(),
                          [&watch] { return watch.stop_asked(); });
  if (!cluster.ok()) {
    (void)Fail(cluster.error());
    return cluster.error();
  }
  watch.Mind(cluster->get());
  const CoordinatorFile announced(folder, (*cluster)->address());
  auto ended = RunOn(**cluster, command, job, start, watch);
  if (!ended.ok()) (void)Fail(ended.error());
  (*cluster)->Stop();  // while a second signal can still end this at once
  watch.Mind(nullptr);
  return ended;
}

// On daemons of its own, which write their logs into the run's folder: it is held.
int RunHere(const RunCommand& command, const LoadedJob& job, const RunStart& start,
            RunWatch& watch) {
  const RunEnd end{.run_directory = start.run_directory,
                   .resume_command = ResumeCommand(command, start.run_directory),
                   .records = true};
  watch.AtForcedEnd([end](bool preempted) { (void)TellLostEnd(end, Forced(), preempted); });
  const auto ended = RunOnDaemons(command, job, start, watch);
  watch.AtForcedEnd(nullptr);
  return ended.ok() ? *ended : TellLostEnd(end, ended.error(), watch.preempted());
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
  const auto plan = Plan(reading.job, command, command.output, /*here=*/true);
  if (!plan.ok()) return Fail(plan.error());
  const int printed = PrintAnswer(plan->text);
  const Status fits = CheckAndSayFit(*plan);
  return fits.ok() ? printed : Fail(fits.error());
}

int SubmitJob(const RunCommand& command) {
  RunWatch watch(/*pauses=*/false);
  if (const Status started = watch.Start(); !started.ok()) return Fail(started.error());
  auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  const auto start = DecideStart(command, *job);
  if (!start.ok()) return Fail(start.error());
  if (command.follow) return RunElsewhere(command, *job, *start, watch);
  const auto client = ConnectControl(command.coordinator);
  const auto reply = Send(*client, command, *job, *start);
  return reply.ok() ? PrintAnswer(SubmitReport(*reply, command.output)) : Fail(reply.error());
}

int RunJob(const RunCommand& command) {
  const bool starts_daemons = command.coordinator.empty();
  // Before what reads, plans and connects: all of it may take its time.
  RunWatch watch(/*pauses=*/starts_daemons);
  if (const Status started = watch.Start(); !started.ok()) return Fail(started.error());
  auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  auto start = DecideStart(command, *job);
  if (!start.ok()) return Fail(start.error());
  const auto plan = Plan(*job, command, OutputFormat::kText, starts_daemons);
  if (!plan.ok()) return Fail(plan.error());
  // Judged before the plan is shown; what does not fit leaves an earlier run where it is.
  Result<std::unique_ptr<FileLock>> held(nullptr);
  if (starts_daemons && (!plan->fit || plan->fit->fits())) {
    held = HoldRunFolder(*start);
    if (!held.ok()) return Fail(held.error());
  }
  Talk("{}", plan->text);
  if (const Status fits = CheckAndSayFit(*plan); !fits.ok()) return Fail(fits.error());
  return starts_daemons ? RunHere(command, *job, *start, watch)
                        : RunElsewhere(command, *job, *start, watch);
}

}  // namespace troupe
