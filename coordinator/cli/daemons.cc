#include "coordinator/cli/daemons.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <utility>

#include "coordinator/agent/agent_client.h"
#include "coordinator/agent/child_rank.h"
#include "coordinator/cli/answer.h"
#include "coordinator/cli/client.h"
#include "coordinator/cli/stop_signals.h"
#include "coordinator/control_service.h"
#include "coordinator/ops/attend.h"
#include "coordinator/ops/stop.h"
#include "coordinator/ops/submit.h"
#include "coordinator/report/background_recorder.h"
#include "coordinator/report/run_directory.h"
#include "runtime/base/awake_clock.h"
#include "runtime/base/process_limits.h"
#include "runtime/base/signal_name.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int kEndCheckMs = 10;
constexpr int kStopMs = 300'000;  // jobs that stand still are killed long before (job_life.h)
constexpr int kAtOnceMs = 2000;
constexpr int kLeaveMs = 2000;            // for the last words of an agent
constexpr int64_t kFileDescriptors = 16;  // of a run directory, of the coordinator's own files
constexpr int64_t kRankDescriptors = 6;  // that the agent holds for a rank, and while it starts one
constexpr int kTalkPatienceMs = 100;     // for a stderr that nobody reads: the loop must go on

// A daemon's end: the first signal asks it to wind up, the next to do so at once.
class EndOnSignal {
 public:
  using OnSignal = std::function<void(int signal, bool at_once)>;

  EndOnSignal(Scheduler& scheduler, bool pauses, OnSignal on_signal)
      : scheduler_(scheduler), signals_(pauses) {
    poller_ = scheduler_.AddPoller(
        [this, on_signal = std::move(on_signal)] {
          const int signal = signals_.Take();
          if (signal == 0) return 0;
          const bool again = signal != SIGTSTP && std::exchange(asked_, true);
          at_once_ |= again;
          on_signal(signal, again);
          return 1;
        },
        signals_.fd(), [] { return true; });
  }
  ~EndOnSignal() { scheduler_.RemovePoller(poller_); }

  // `end` once `is_over`; the loop stops in any case after `limit_ms`.
  void When(std::function<bool()> is_over, std::function<void()> end, int limit_ms) {
    scheduler_.Cancel(limit_);
    limit_ = scheduler_.After(limit_ms, [this] { scheduler_.Stop(); });
    is_over_ = std::move(is_over);
    end_ = std::move(end);
    scheduler_.Cancel(check_);
    Check();
  }
  bool at_once() const { return at_once_; }

 private:
  void Check() {
    if (is_over_()) return end_();
    check_ = scheduler_.After(kEndCheckMs, [this] { Check(); });
  }

  Scheduler& scheduler_;
  StopSignals signals_;
  PollerId poller_;
  bool asked_ = false;
  bool at_once_ = false;
  std::function<bool()> is_over_{};
  std::function<void()> end_{};
  TimerId check_{};
  TimerId limit_{};
};

// Where memory runs out the daemon says so and ends as it stands: gRPC's threads wait for a loop
// that has gone, so there is nothing to unwind to.
void RunLoop(Scheduler& scheduler) noexcept { scheduler.Run(); }

// One coordinator a folder: its jobs have numbers and run directories that no other gives out.
struct ClaimedFolder {
  std::unique_ptr<FileLock> lock{};
  uint64_t first_job = 0;
};

Result<ClaimedFolder> ClaimFolder(FileSystem& files, const std::string& folder) {
  if (Status made = files.CreateDirectories(folder); !made.ok()) {
    return Context("--state", std::move(made).error());
  }
  const std::string flag = fmt::format("--state {}", folder);
  auto lock =
      files.Lock(JoinPath(folder, "lock"), fmt::format("coordinator process {}", ::getpid()));
  if (!lock.ok()) return Context(flag, std::move(lock).error());
  const auto first_job = FirstJob(files, folder);
  if (!first_job.ok()) return Context(flag, first_job.error());
  return ClaimedFolder{.lock = *std::move(lock), .first_job = *first_job};
}

// Run directories written on the disk's stream.
NewRecorder RunDirectories(Scheduler& scheduler, FileSystem& files, Stream& disk) {
  return [&scheduler, &files, &disk](const std::string& path,
                                     std::function<void(const std::string&)> on_trouble) {
    const auto post = [&scheduler, on_trouble = std::move(on_trouble)](const std::string& trouble) {
      scheduler.Post([on_trouble, trouble] { on_trouble(trouble); });
    };
    return std::make_unique<BackgroundRecorder>(
        disk, std::make_unique<RunDirectory>(files, SystemClock(), path, post), post);
  };
}

}  // namespace

int RunCoordinator(const CoordinatorCommand& command) {
  SayWhereMemoryRunsOut(
      "the coordinator is out of memory: raise ulimit -v, or end what else runs here\n");
  SetTalkPatience(kTalkPatienceMs);
  AwakeClock clock(SystemClock());
  Scheduler scheduler({.clock = &clock, .spin_us = 0, .trace_handlers = false});
  FileSystem& files = SystemFiles();
  State state;
  state.options.state_directory = command.state_directory;
  state.options.dead_after_ms = command.host_silence_seconds * 1000;
  EndOnSignal end(scheduler, /*pauses=*/false, [&](int signal, bool at_once) {
    const std::string cause = fmt::format("{} at the coordinator", SignalName(signal));
    Talk("{}: {}\n", cause,
         at_once ? "ends at once" : "jobs stop with a checkpoint; again: at once");
    StopJobs(state, {.kill = at_once, .preempted = IsPreemption(signal), .cause = cause});
    end.When([&] { return AllJobsTold(state); }, [&] { scheduler.Stop(); },
             at_once ? kAtOnceMs : kStopMs);
  });
  if (const Status limits = CheckRpcLimits("the coordinator", kFileDescriptors); !limits.ok()) {
    return Fail(limits.error());
  }
  const auto folder = ClaimFolder(files, command.state_directory);
  if (!folder.ok()) return Fail(folder.error());
  state.term = static_cast<uint64_t>(scheduler.clock().WallUs());
  state.next_job = folder->first_job;
  ThreadStream planner(scheduler, "planner", /*spin_us=*/0);
  ThreadStream disk(scheduler, "disk", /*spin_us=*/0);
  for (const ThreadStream* stream : {&planner, &disk}) {
    if (stream->started().ok()) continue;
    return Fail(stream->started().error());
  }
  const Seams seams{scheduler, files, planner, disk};
  const NewRecorder recorder = RunDirectories(scheduler, files, disk);
  auto server = ControlServer::Start(state, seams, recorder, command.listen);
  if (!server.ok()) return Fail(server.error());
  const std::string host = command.listen.substr(0, command.listen.rfind(':'));
  (void)PrintAnswer(
      fmt::format("troupe coordinator listening on {}:{}\n", host, (*server)->port()));
  WatchHosts(state, seams);
  RunLoop(scheduler);
  // Agents lose their connection, which ends every rank.
  for (auto& [id, host] : state.hosts) {
    if (host.port != nullptr) host.port->Close();
  }
  RefuseSubmissions(state);
  (*server)->Shutdown();
  scheduler.RunUntilIdle();
  if (end.at_once()) ::_exit(0);  // a recorder may wait for its disk
  return 0;
}

int RunWorker(const WorkerCommand& command) {
  SayWhereMemoryRunsOut(
      "the host agent is out of memory: raise ulimit -v, or end what else runs here\n");
  SetTalkPatience(kTalkPatienceMs);
  AwakeClock clock(SystemClock());
  Scheduler scheduler({.clock = &clock, .spin_us = 0, .trace_handlers = false});
  SilenceTransportOfRanks();
  char host[256] = "host";
  ::gethostname(host, sizeof(host) - 1);
  HostAgent agent({.name = command.name.empty() ? host : command.name, .slots = command.slots},
                  {scheduler, SystemFiles(), ChildRanks(scheduler, RankProgram())});
  std::unique_ptr<AgentClient> client;
  EndOnSignal end(scheduler, /*pauses=*/true, [&](int signal, bool at_once) {
    if (signal == SIGTSTP) {
      agent.SignalRanks(SIGSTOP);
      ::raise(SIGSTOP);  // until SIGCONT
      return agent.SignalRanks(SIGCONT);
    }
    if (at_once) return scheduler.Stop();
    agent.AskStop(SignalName(signal), IsPreemption(signal));
    end.When([&] { return agent.num_ranks() == 0; },
             [&] {
               scheduler.After(kLeaveMs, [&] { scheduler.Stop(); });
               client->Leave([&] { scheduler.Stop(); });
             },
             kStopMs);
  });
  if (const Status limits = CheckRpcLimits("the host agent", kRankDescriptors * command.slots);
      !limits.ok()) {
    return Fail(limits.error());
  }
  client = AgentClient::Connect(agent, scheduler, command.join);
  RunLoop(scheduler);
  client.reset();
  return 0;
}

std::string RankProgram() {
  const char* given = std::getenv("TROUPE_RANK");
  if (given != nullptr) return given;
  std::error_code ignored;
  const auto own = std::filesystem::read_symlink("/proc/self/exe", ignored);
  return (own.parent_path() / "troupe-rank").string();
}

void SilenceTransportOfRanks() {
  ::setenv("UCX_LOG_LEVEL", "fatal", /*overwrite=*/0);
  ::setenv("UCX_WARN_UNUSED_ENV_VARS", "n", /*overwrite=*/0);
}

}  // namespace troupe
