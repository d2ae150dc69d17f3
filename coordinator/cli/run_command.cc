#include "coordinator/cli/run_command.h"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>

#include "coordinator/cli/client.h"
#include "coordinator/cli/local_cluster.h"
#include "coordinator/job/job_file.h"
#include "coordinator/job/resume.h"
#include "coordinator/report/console.h"
#include "coordinator/report/memory_fit.h"
#include "coordinator/report/plan_report.h"
#include "runtime/base/bytes_in_words.h"
#include "runtime/base/host_memory.h"
#include "runtime/base/random.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

int Fail(const Error& error) {
  Talk("{}\n", error.message);
  return ExitCode(error.code);
}

int Cores() { return static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)); }

Result<LoadedJob> Load(const RunCommand& command) {
  std::vector<Override> overrides;
  for (const std::string& text : command.sets) {
    ASSIGN_OR_RETURN(auto one, ParseOverride(text));
    overrides.push_back(std::move(one));
  }
  if (!command.resume.empty()) {
    overrides.push_back({.path = "checkpoint.resume",
                         .value = command.resume,
                         .flag = "--resume " + command.resume});
  }
  return LoadJob(SystemFiles(), command.job_file, overrides);
}

std::string NewRunDirectory(const std::string& name) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char stamp[32];
  std::strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &local);
  return (std::filesystem::current_path() / "runs" / name /
          fmt::format("{}-{:04x}", stamp, SystemRandom().NextU64() & 0xffff))
      .string();
}

std::string RunDirectoryOf(const RunCommand& command, const std::string& name) {
  if (command.run_directory.empty()) return NewRunDirectory(name);
  return std::filesystem::absolute(command.run_directory).lexically_normal().string();
}

// SIGINT and SIGTERM while a job is followed: first a clean stop, then an end at once.
class CancelOnSignal {
 public:
  CancelOnSignal() {
    ::sigemptyset(&signals_);
    ::sigaddset(&signals_, SIGINT);
    ::sigaddset(&signals_, SIGTERM);
    ::sigaddset(&signals_, SIGUSR1);  // ends the waiting thread
    ::pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }
  // Until Stop, which `client` must outlive.
  void Watch(ControlClient& client, uint64_t job) {
    thread_ = std::thread([this, &client, job] {
      for (int count = 0;;) {
        int signal = 0;
        ::sigwait(&signals_, &signal);
        if (signal == SIGUSR1) return;
        proto::CancelRequest request;
        request.set_job(job);
        request.set_checkpoint(true);
        request.set_kill(++count > 1);
        Talk("\n{}\n", count == 1 ? "stopping after this step, with a checkpoint; again: at once"
                                  : "stopping at once");
        (void)client.Cancel(request);
      }
    });
  }
  ~CancelOnSignal() { Stop(); }
  void Stop() {
    if (!thread_.joinable()) return;
    ::pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }

 private:
  sigset_t signals_{};
  std::thread thread_;
};

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
  request.set_point_latest(command.run_directory.empty());
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

int FollowJob(ControlClient& client, const RunCommand& command, const LoadedJob& job, uint64_t id,
              const std::string& run_directory) {
  ConsoleOptions options;
  options.output = command.output;
  options.log_every = job.spec.log().every();
  options.num_workers = job.spec.resources().workers();
  options.steps =
      job.spec.train().stop_after() > 0 ? job.spec.train().stop_after() : job.spec.train().steps();
  options.bar = ShowsBar(stderr);
  options.trace = job.spec.log().trace();
  options.tensorboard = job.spec.log().tensorboard();
  options.resume_command = ResumeCommand(command, run_directory);
  Console console(options, SystemClock(), stdout, stderr);
  int exit_code = ExitCode(ErrorCode::kUnavailable);
  const Status followed = client.Follow(id, [&](const proto::JobEvent& event) {
    console.Show(event);
    if (event.has_result()) exit_code = event.result().exit_code();
  });
  if (!followed.ok()) return Fail(followed.error());
  return exit_code;
}

// A job submitted before the agent has joined would only be queued.
void AwaitSlots(ControlClient& client, int slots) {
  constexpr int kPatienceMs = 5000;
  constexpr int kPauseMs = 10;
  for (int waited_ms = 0; waited_ms < kPatienceMs; waited_ms += kPauseMs) {
    int offered = 0;
    if (const auto reply = client.ListJobs(); reply.ok()) {
      for (const auto& host : reply->hosts()) offered += host.slots();
    }
    if (offered >= slots) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(kPauseMs));
  }
}

// What does not fit this host at all is refused; what may not fit beside what else runs is said.
int SayWhetherItFits(const MemoryFit& fit) {
  if (const Status fits = CheckFit(fit); !fits.ok()) return Fail(fits.error());
  if (!fit.fits_now()) {
    Talk("warning: {} are needed, {} are available now: the kernel may end the job\n",
         BytesInWords(static_cast<double>(fit.needed_bytes())),
         BytesInWords(static_cast<double>(fit.memory.available_bytes)));
  }
  return 0;
}

// `here`: all ranks will run on this host.
int PrintPlan(const LoadedJob& job, bool here, std::FILE* to) {
  auto plan = MakeJobPlan(job.spec);
  if (!plan.ok()) return Fail(plan.error());
  std::string text = PlanText(job.spec, *plan, {Cores(), ThisVectorIsa()});
  const auto memory = here ? ReadHostMemory(SystemFiles()) : std::nullopt;
  if (!memory) {
    fmt::print(to, "{}\n", text);
    return 0;
  }
  const MemoryFit fit = FitOnHost(job.spec, *plan, ThisVectorIsa(), *memory);
  fmt::print(to, "{}{}\n", text, FitText(fit, plan->train.num_ranks));
  std::fflush(to);
  return SayWhetherItFits(fit);
}

void SayWhereItBegins(const ResumePoint& point) {
  for (const std::string& note : point.notes) Talk("{}\n", note);
  if (!point.folder.empty()) Talk("going on from {}\n", point.folder);
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
  if (command.output == OutputFormat::kText) return PrintPlan(*job, /*here=*/true, stdout);
  auto plan = MakeJobPlan(job->spec);
  if (!plan.ok()) return Fail(plan.error());
  const int indent = command.output == OutputFormat::kJson ? 2 : -1;
  const auto memory = ReadHostMemory(SystemFiles());
  if (!memory) {
    fmt::print("{}\n", PlanJson(job->spec, *plan, ThisVectorIsa(), indent));
    return 0;
  }
  const MemoryFit fit = FitOnHost(job->spec, *plan, ThisVectorIsa(), *memory);
  fmt::print("{}\n", PlanJson(job->spec, *plan, ThisVectorIsa(), indent, &fit));
  std::fflush(stdout);
  return SayWhetherItFits(fit);
}

int ValidateJob(const RunCommand& command) {
  const auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  Talk("{}: ok\n", command.job_file);
  return 0;
}

int SubmitJob(const RunCommand& command) {
  auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  CancelOnSignal signals;
  const auto client = ConnectControl(command.coordinator);
  const std::string run_directory = RunDirectoryOf(command, job->spec.name());
  const auto resume = ResolveResume(SystemFiles(), run_directory, *job);
  if (!resume.ok()) return Fail(resume.error());
  SayWhereItBegins(*resume);
  auto reply = Send(*client, command, *job, run_directory, resume->folder);
  if (!reply.ok()) return Fail(reply.error());
  if (!command.follow) {
    fmt::print("{}", SubmitReport(*reply, command.output));
    return 0;
  }
  Talk("job {}\n", reply->job());
  signals.Watch(*client, reply->job());
  const int exit_code = FollowJob(*client, command, *job, reply->job(), reply->run_directory());
  signals.Stop();
  return exit_code;
}

int RunJob(const RunCommand& command) {
  auto job = Load(command);
  if (!job.ok()) return Fail(job.error());
  CancelOnSignal signals;
  if (const int failed = PrintPlan(*job, command.coordinator.empty(), stderr); failed != 0)
    return failed;
  const std::string run_directory = RunDirectoryOf(command, job->spec.name());
  const auto resume = ResolveResume(SystemFiles(), run_directory, *job);
  if (!resume.ok()) return Fail(resume.error());
  SayWhereItBegins(*resume);
  std::unique_ptr<LocalCluster> cluster;
  std::string address = command.coordinator;
  if (address.empty()) {
    auto started = LocalCluster::Start(run_directory, run_directory + "/logs",
                                       job->spec.resources().workers());
    if (!started.ok()) return Fail(started.error());
    cluster = *std::move(started);
    address = cluster->address();
  }
  const auto client = ConnectControl(address);
  if (cluster) AwaitSlots(*client, job->spec.resources().workers());
  auto reply = Send(*client, command, *job, run_directory, resume->folder);
  if (!reply.ok()) return Fail(reply.error());
  signals.Watch(*client, reply->job());
  const int exit_code = FollowJob(*client, command, *job, reply->job(), run_directory);
  signals.Stop();
  return exit_code;
}

}  // namespace troupe
