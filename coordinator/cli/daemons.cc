#include "coordinator/cli/daemons.h"

#include <fmt/format.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "coordinator/agent/agent_client.h"
#include "coordinator/control_service.h"
#include "coordinator/ops/attend.h"
#include "coordinator/ops/submit.h"
#include "coordinator/report/background_recorder.h"
#include "coordinator/report/run_directory.h"
#include "runtime/base/awake_clock.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int kSilenceCheckMs = 250;

// Stops the scheduler at the first SIGINT or SIGTERM. Made before any thread starts.
class StopSignals {
 public:
  explicit StopSignals(Scheduler& scheduler) : scheduler_(scheduler) {
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGINT);
    ::sigaddset(&signals, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &signals, nullptr);
    fd_ = ::signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    poller_ = scheduler_.AddPoller(
        [this] {
          signalfd_siginfo info;
          if (::read(fd_, &info, sizeof(info)) != sizeof(info)) return 0;
          scheduler_.Stop();
          return 1;
        },
        fd_, [] { return true; });
  }
  ~StopSignals() {
    scheduler_.RemovePoller(poller_);
    ::close(fd_);
  }

 private:
  Scheduler& scheduler_;
  int fd_ = -1;
  PollerId poller_;
};

void CheckSilence(State& state, Seams seams) {
  DropSilentHosts(state, seams);
  seams.scheduler.After(kSilenceCheckMs, [&state, seams] { CheckSilence(state, seams); });
}

}  // namespace

int RunCoordinator(const CoordinatorCommand& command) {
  AwakeClock clock(SystemClock());
  Scheduler scheduler({.clock = &clock, .spin_us = 0, .trace_handlers = false});
  StopSignals stop(scheduler);
  FileSystem& files = SystemFiles();
  if (const Status made = files.CreateDirectories(command.state_directory); !made.ok()) {
    Talk("--state: {}\n", made.error().message);
    return ExitCode(made.error().code);
  }
  // One coordinator a folder: its jobs have numbers and run directories that no other gives out.
  const auto lock = files.Lock(JoinPath(command.state_directory, "lock"),
                               fmt::format("coordinator process {}", ::getpid()));
  const auto first_job = FirstJob(files, command.state_directory);
  for (const Error* error :
       {lock.ok() ? nullptr : &lock.error(), first_job.ok() ? nullptr : &first_job.error()}) {
    if (error == nullptr) continue;
    Talk("--state {}: {}\n", command.state_directory, error->message);
    return ExitCode(error->code);
  }
  State state;
  state.options.state_directory = command.state_directory;
  state.term = static_cast<uint64_t>(scheduler.clock().WallUs());
  state.next_job = *first_job;
  ThreadStream planner(scheduler, "planner", /*spin_us=*/0);
  ThreadStream disk(scheduler, "disk", /*spin_us=*/0);
  const Seams seams{scheduler, files, planner, disk};
  const NewRecorder recorder = [&](const std::string& path,
                                   std::function<void(const std::string&)> on_trouble) {
    const auto post = [&scheduler, on_trouble = std::move(on_trouble)](const std::string& trouble) {
      scheduler.Post([on_trouble, trouble] { on_trouble(trouble); });
    };
    return std::make_unique<BackgroundRecorder>(
        disk, std::make_unique<RunDirectory>(files, SystemClock(), path, post));
  };
  auto server = ControlServer::Start(state, seams, recorder, command.listen);
  if (!server.ok()) {
    Talk("{}\n", server.error().message);
    return ExitCode(server.error().code);
  }
  const std::string host = command.listen.substr(0, command.listen.rfind(':'));
  fmt::print("troupe coordinator listening on {}:{}\n", host, (*server)->port());
  std::fflush(stdout);
  CheckSilence(state, seams);
  scheduler.Run();
  // Agents lose their connection, which ends every rank.
  for (auto& [id, host] : state.hosts) host.port->Close();
  RefuseSubmissions(state);
  (*server)->Shutdown();
  scheduler.RunUntilIdle();
  return 0;
}

int RunWorker(const WorkerCommand& command) {
  AwakeClock clock(SystemClock());
  Scheduler scheduler({.clock = &clock, .spin_us = 0, .trace_handlers = false});
  StopSignals stop(scheduler);
  const char* given = std::getenv("TROUPE_RANK");
  std::error_code ignored;
  const std::string program =
      given != nullptr
          ? given
          : (std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / "troupe-rank")
                .string();
  // For the ranks, whose transport reads these as it is loaded: a lost peer is told by a sentence
  // of ours.
  ::setenv("UCX_LOG_LEVEL", "fatal", /*overwrite=*/0);
  ::setenv("UCX_WARN_UNUSED_ENV_VARS", "n", /*overwrite=*/0);
  char host[256] = "host";
  ::gethostname(host, sizeof(host) - 1);
  HostAgent agent({.name = command.name.empty() ? host : command.name,
                   .slots = command.slots,
                   .rank_program = program},
                  scheduler);
  {
    const auto client = AgentClient::Connect(agent, scheduler, command.join);
    scheduler.Run();
  }
  return 0;
}

}  // namespace troupe
