// What the coordinator knows: hosts and jobs. Plain values on the event-loop thread; ops and
// JobLife change them, nobody else.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coordinator/job_history.h"
#include "proto/control.pb.h"
#include "runtime/actor/scheduler.h"
#include "runtime/actor/stream.h"
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

struct CoordinatorOptions {
  std::string state_directory{};
  int heartbeat_ms = 500;
  int dead_after_ms = 30'000;  // without a word from an agent its ranks are lost
};

// What the coordinator reaches the world by.
struct Seams {
  Scheduler& scheduler;
  FileSystem& files;
  Stream& planner;  // plans and simulations: may take long, wait for no disk
  Stream& disk;     // whatever waits for a disk
};

// Answers a call, once, on the loop.
template <typename Reply>
using Answer = std::function<void(Result<Reply>)>;

// A job on its way in: planned and its folder taken off the loop.
struct Submission {
  proto::SubmitRequest request{};
  std::vector<Answer<proto::SubmitReply>> answers{};  // of retries too
  uint64_t job = 0;                                   // its number; 0 while it is planned
};

struct State {
  State();
  ~State();

  CoordinatorOptions options{};
  uint64_t term = 1;  // no two coordinators have the same
  std::map<HostId, Host> hosts{};
  HostId next_host = 1;
  std::map<uint64_t, std::unique_ptr<JobLife>> jobs;
  std::map<uint64_t, Submission> submissions{};  // by ticket
  uint64_t next_submission = 1;
  std::map<std::string, uint64_t> by_submission{};
  std::deque<uint64_t> ended{};  // oldest first
  uint64_t next_job = 1;
  EventBytes event_bytes = std::make_shared<std::atomic<int64_t>>(0);
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

// A job has ended: what is kept of earlier ones shrinks, and the oldest are forgotten. Their run
// directories have it all.
void Forget(State& state, uint64_t job);

// The agent's stream has ended or it has been silent for too long: its ranks are lost.
void HostGone(State& state, HostId host, const std::string& why);

}  // namespace troupe
