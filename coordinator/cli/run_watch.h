// RunWatch: what a client that follows a job minds meanwhile, on a thread of its own: signals, the
// daemons that it started, a coordinator that answers no more. Nothing that it does waits without a
// deadline, so a second signal ends the client whatever hangs.
//
//   W1. The first signal asks the job for a clean stop, the second ends it at once. The daemons are
//       killed and the process ends by _exit at a third, limits.force after the second, and
//       limits.unanswered after the first where no job is known yet; before, AtForcedEnd has
//       limits.last_words.
//   W2. A coordinator that leaves a clean stop unanswered for limits.unanswered, or has
//       said and answered nothing for limits.silence, is given up: Follow returns, and `verdict`
//       says why.
//   W3. Time in which this process itself was stopped counts for nothing.
//   W4. SIGTSTP, where it was asked for, stops the daemons and their ranks, then this process;
//       SIGCONT lets all go on.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "coordinator/cli/client.h"
#include "coordinator/cli/local_cluster.h"
#include "coordinator/cli/stop_signals.h"
#include "runtime/base/clock.h"

namespace troupe {

// Milliseconds in which this process lived.
struct RunWatchLimits {
  int unanswered = 3000;   // a clean stop
  int probe = 10'000;      // the coordinator's silence, after which it is asked
  int silence = 30'000;    // and given up
  int daemon_gone = 2000;  // until a job that nothing ran is ended
  int force = 3000;        // from the second signal to the end of this process
  int last_words = 1000;   // that AtForcedEnd has
};

class RunWatch {
 public:
  // Blocks the signals: made before any thread.
  explicit RunWatch(bool pauses, RunWatchLimits limits = {}, const Clock& clock = SystemClock());
  ~RunWatch();
  Status Start();

  // What to mind from now on; null: nothing any more.
  void Mind(LocalCluster* cluster);
  // `client` follows the job, at `address`.
  void Mind(ControlClient* client, const std::string& address, uint64_t job);
  // What is done, on a thread of its own, where this ends the process. Null: nothing.
  void AtForcedEnd(std::function<void(bool preempted)> last_words);

  void Heard() { heard_ = true; }  // the coordinator spoke
  bool stop_asked() const { return stop_asked_; }
  // Whether it was the machine that asked, by SIGUSR1 alone.
  bool preempted() const { return preempted_; }
  // Why this gave something up: a daemon of ours, or the coordinator. May wait for a disk, which
  // the other thread never does.
  std::optional<Error> verdict();

 private:
  void Loop();
  void OnSignal(int signal);
  void Pause();
  void MindDaemons();
  void MindCoordinator();
  void AskStop();
  void GiveUp(Error why);
  [[noreturn]] void ForceEnd();
  void SayNow(const std::string& line) const;

  const RunWatchLimits limits_;
  const Clock& clock_;
  StopSignals signals_;
  int wake_fd_ = -1;
  std::thread thread_;
  std::atomic<bool> heard_{false};
  std::atomic<bool> stop_asked_{false};
  std::atomic<bool> preempted_{false};
  std::atomic<bool> ending_{false};

  std::mutex mutex_;  // of what follows
  LocalCluster* cluster_ = nullptr;
  ControlClient* client_ = nullptr;
  std::unique_ptr<ControlClient> quick_{};  // the same coordinator, with a short deadline
  std::string address_{};
  uint64_t job_ = 0;
  bool has_job_ = false;  // or had
  std::function<void(bool)> last_words_{};
  std::optional<Error> verdict_{};
  enum class Gone : uint8_t { kNone, kCoordinator, kAgent } gone_ = Gone::kNone;
  int num_signals_ = 0;
  std::optional<proto::CancelRequest> order_{};  // until the coordinator has it
  // Milliseconds that this thread has lived.
  int64_t lived_ms_ = 0;
  int64_t heard_ms_ = 0;
  int64_t tried_ms_ = 0;
  int64_t ordered_ms_ = 0;
  std::optional<int64_t> agent_gone_ms_{};
  std::optional<int64_t> force_ms_{};
};

}  // namespace troupe
