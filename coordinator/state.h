// What the coordinator knows: hosts and jobs. Plain values on the event-loop thread; ops and
// JobLife change them, nobody else.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "proto/control.pb.h"
#include "runtime/actor/scheduler.h"
#include "runtime/base/file_system.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"

namespace troupe {

class JobLife;

// A host agent's end of its stream. Calls come from the event loop; the door posts them on.
class AgentPort {
 public:
  virtual ~AgentPort() = default;
  virtual void Send(const proto::ToAgent& command) = 0;
  // Ends the stream: the agent has been given up and may join anew.
  virtual void Close() = 0;
};

// A client that follows a job.
class FollowerPort {
 public:
  virtual ~FollowerPort() = default;
  virtual void Send(const proto::JobEvent& event) = 0;
  virtual void Finish() = 0;  // no event follows
};

struct Host {
  std::string name{};
  int slots = 0;
  int cores = 0;
  std::string build{};
  AgentPort* port = nullptr;  // null: gone
  int64_t last_heard_ns = 0;
  std::set<int> used_slots{};
  bool leaving = false;  // told to end: takes no new ranks
};

using HostId = int;
using FollowerId = int64_t;

struct CoordinatorOptions {
  std::string state_directory{};
  int heartbeat_ms = 500;
  int dead_after_ms = 3000;  // without a word from an agent its ranks are lost
};

// What the coordinator reaches the world by.
struct Seams {
  Scheduler& scheduler;
  FileSystem& files;
};

struct State {
  State();
  ~State();

  CoordinatorOptions options{};
  uint64_t term = 1;
  std::map<HostId, Host> hosts{};
  HostId next_host = 1;
  std::optional<int64_t> silence_checked_ns{};  // when DropSilentHosts ran last
  std::map<uint64_t, std::unique_ptr<JobLife>> jobs;
  std::map<std::string, uint64_t> by_submission{};
  uint64_t next_job = 1;
  FollowerId next_follower = 1;
  bool stopping = false;  // told to end: takes no new jobs
};

// A worker's place: a slot of a host.
struct Placement {
  HostId host = 0;
  int slot = 0;
};

// `num_ranks` free slots, neighbours on one host first: hosts in the order of joining, each filled
// before the next. An error says how many are missing.
Result<std::vector<Placement>> PlaceRanks(const std::map<HostId, Host>& hosts, int num_ranks);

// Starts queued jobs, oldest first, as far as slots go. Called whenever a job or a slot comes or
// goes.
void StartWhatFits(State& state);

// The agent's stream has ended or it has been silent for too long: its ranks are lost.
void HostGone(State& state, HostId host, const std::string& why);

}  // namespace troupe
