// HostAgent: the daemon of one host. Starts ranks when told, carries messages between them and the
// coordinator, captures what they print, and reaps them.
// Thread: the scheduler's.
//   A1. A rank lives no longer than the agent: it dies with the agent's thread, and ends at the end
//       of its control socket.
//   A2. Without a word from the coordinator for dead_after_ms, or when the connection ends, every
//       rank is killed: the coordinator has given them up.
//   A3. RankExited is the last that the coordinator hears of a rank.
//   A4. A rank that says nothing for kSilentMs is told of, again every kTellAgainMs, and once more
//       when it speaks. Judged from its first Alive on (before, it may measure), or where the
//       kernel says that it is stopped. The agent judges; the coordinator decides.
//   A5. A killed rank that stays is killed again every kKillAgainMs.
//   A6. No more ranks than slots, whatever the coordinator says.
//   A7. What waits to be sent is bounded. Beyond kBacklogBytesMax what ranks print is not read and
//       their progress, spans and memory are left out; beyond kWaitingBytesMax every rank is
//       killed.
// Time is the scheduler's clock's: in the daemon one that stands still while the agent does
// (runtime/base/awake_clock.h), so its own pause is nobody's silence.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "coordinator/agent/rank_process.h"
#include "proto/control.pb.h"
#include "runtime/actor/scheduler.h"
#include "runtime/base/file_system.h"

namespace troupe {

struct HostAgentOptions {
  std::string name{};
  int slots = 1;
};

// What an agent reaches the world by, besides its connection.
struct AgentSeams {
  Scheduler& scheduler;
  FileSystem& files;  // where the kernel says whom it killed for memory
  StartRankProcess start_rank{};
};

class HostAgent {
 public:
  static constexpr int kSilentMs = 2000;
  static constexpr int kTellAgainMs = 5000;
  static constexpr int kKillAgainMs = 3000;
  static constexpr int kBeatMsMax = 500;
  static constexpr size_t kBacklogBytesMax = size_t{4} << 20;
  static constexpr size_t kWaitingBytesMax = size_t{256} << 20;

  HostAgent(HostAgentOptions options, AgentSeams seams);
  ~HostAgent();

  // A connection exists: joins over it. `waiting_bytes`: of what was given to `send`, and has not
  // left yet; without it nothing ever waits.
  void Connected(std::function<void(const proto::FromAgent&)> send,
                 std::function<size_t()> waiting_bytes = {});
  void Disconnected();
  void OnCommand(const proto::ToAgent& command);
  // Told to end by `signal`: the coordinator is to stop the jobs of this host. The ranks live on
  // until their jobs end them.
  void AskStop(const std::string& signal, bool preempted);
  // SIGSTOP and SIGCONT, for every rank.
  void SignalRanks(int signal);

  int num_ranks() const { return static_cast<int>(ranks_.size()); }

 private:
  using RankKey = std::tuple<uint64_t, uint64_t, int32_t>;  // job, epoch, rank
  struct HeldRank {
    std::unique_ptr<RankProcess> process{};
    std::string cause{};                 // why it was killed
    std::optional<int64_t> oom_kills{};  // at its start
    int64_t last_heard_ns = 0;
    bool is_alive = false;        // it has said Alive
    int64_t silence_told_ns = 0;  // 0: it is not known to be silent
    int64_t killed_ns = 0;        // 0: it was not
  };

  void Spawn(const proto::SpawnRank& spawn);
  Status StartRank(const RankKey& key, const proto::SpawnRank& spawn);
  void RankSpoke(const RankKey& key, const proto::FromRank& message);
  void Printed(const RankKey& key, std::string_view piece);
  void RankEnded(const RankKey& key, ExitReport report);
  void KillRank(HeldRank& rank);
  void KillBecause(HeldRank& rank, const std::string& cause);
  void KillAll(const std::string& cause);
  void Kill(uint64_t job, uint64_t epoch);
  void WatchRank(const RankKey& key, HeldRank& rank, int64_t now_ns);
  void TellSilence(const RankKey& key, int64_t silent_ms, bool stopped);
  void Beat();
  void Say(const proto::FromAgent& message);
  void HeedBacklog();
  const std::string& name() const;

  const HostAgentOptions options_;
  const AgentSeams seams_;
  Scheduler& scheduler_;
  std::function<void(const proto::FromAgent&)> send_{};
  std::function<size_t()> waiting_bytes_{};
  bool backlog_ = false;  // A7
  TimerId backlog_timer_{};
  std::string known_as_{};  // to the coordinator
  std::map<RankKey, HeldRank> ranks_{};
  int64_t last_heard_ns_ = 0;
  int heartbeat_ms_ = 500;
  int dead_after_ms_ = 3000;
  TimerId beat_{};
  proto::FromAgent stop_asked_{};  // empty: it was not
};

}  // namespace troupe
