// LocalCluster: what `troupe run` starts when no coordinator is given: a coordinator on a free
// loopback port and a host agent, both children that end with it.
// Thread: made, stopped and destroyed on one, which must outlive the children; the rest any thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/base/result.h"

namespace troupe {

class LocalCluster {
 public:
  // The daemons' own talk goes to `log_directory`. Gives up where `stop_asked` says so.
  static Result<std::unique_ptr<LocalCluster>> Start(const std::string& state_directory,
                                                     const std::string& log_directory, int slots,
                                                     const std::function<bool()>& stop_asked);
  ~LocalCluster();  // as Stop
  LocalCluster(const LocalCluster&) = delete;
  LocalCluster& operator=(const LocalCluster&) = delete;

  const std::string& address() const { return address_; }

  // Whether a daemon ended by itself. Waits for nothing.
  bool AgentHasEnded() { return HasEnded(agent_); }
  bool CoordinatorHasEnded() { return HasEnded(coordinator_); }
  // How, with the last line of its log, which may wait for a disk; empty while it lives.
  std::string AgentEnd() { return EndOf(agent_); }
  std::string CoordinatorEnd() { return EndOf(coordinator_); }
  // Stops agent, ranks and coordinator, and lets them go on.
  void Pause();
  void Resume();
  // Asks both to end, waits a few seconds, then kills; the ranks go with the agent.
  void Stop();
  // At once; does not wait.
  void Kill();

 private:
  struct Daemon {
    pid_t pid = -1;  // -1: not started, or reaped
    int status = 0;  // of waitpid
    bool ended = false;
    std::string name{};
    std::string log{};
  };

  LocalCluster() = default;
  Result<std::string> StartCoordinator(const std::string& state_directory,
                                       const std::function<bool()>& stop_asked);
  Status StartAgent(int slots);
  void Signal(const Daemon& daemon, int signal);
  bool Reap(Daemon& daemon);  // true: it has ended, or never began; under the mutex
  bool HasEnded(Daemon& daemon);
  std::string EndOf(Daemon& daemon);

  std::string address_{};
  std::mutex mutex_{};  // a number is signalled only while it is this daemon's
  Daemon coordinator_{.name = "coordinator"};
  Daemon agent_{.name = "host agent"};
};

}  // namespace troupe
