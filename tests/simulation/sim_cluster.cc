#include "tests/simulation/sim_cluster.h"

#include <algorithm>
#include <utility>

#include "runtime/trace/span.h"

namespace troupe::testing {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
// A stream whose peer does not answer is given up: 10 s until it is asked, 20 s for the answer.
constexpr int64_t kKeepaliveNs = 30 * kSecondNs;
constexpr const char* kStateDirectory = "/state";

}  // namespace

SimCluster::SimCluster(const SimClusterOptions& options)
    : options_(options), world_(options.seed, options.num_agents + 1) {
  (void)DrainTrace([](const SpanRecord&) {});  // what an earlier run left in this thread's ring
  StartCoordinator();
  for (int host = 1; host <= options.num_agents; ++host) StartAgent(host);
  world_.driver.AfterEach([this] { Look(); });
}

SimCluster::~SimCluster() {
  world_.driver.AfterEach({});
  if (coordinators_.back()->alive()) coordinators_.back()->Die();
  for (const auto& agent : agents_) {
    if (agent->alive()) agent->Die();
  }
  agents_.clear();
}

bool SimCluster::RunUntil(const std::function<bool()>& done, int64_t limit_ns) {
  const auto violated = [this] { return !world_.invariants.violation().empty(); };
  const int64_t deadline_ns = world_.now_ns() + limit_ns;
  world_.driver.RunUntil([&] { return violated() || done(); }, deadline_ns);
  return !violated() && done();
}

// ---- faults ------------------------------------------------------------------------------------

void SimCluster::KillCoordinator() { coordinators_.back()->Die(); }

void SimCluster::StartCoordinator() {
  world_.Log("the coordinator starts");
  coordinators_.push_back(std::make_unique<SimCoordinator>(
      world_, CoordinatorOptions{.state_directory = kStateDirectory}));
}

void SimCluster::KillAgent(HostIndex host) {
  if (SimAgent* victim = agent(host)) victim->Die();
}

void SimCluster::StartAgent(HostIndex host) {
  world_.Log("agent {} starts", host);
  agents_.push_back(
      std::make_unique<SimAgent>(world_, host, options_.slots, [this] { return coordinator(); }));
}

SimAgent* SimCluster::agent(HostIndex host) {
  for (const auto& agent : agents_) {
    if (agent->host() == host && agent->alive()) return agent.get();
  }
  return nullptr;
}

int SimCluster::num_joined() {
  SimCoordinator* now = coordinator();
  return now == nullptr ? 0 : static_cast<int>(now->state().hosts.size());
}

std::vector<SimProcess*> SimCluster::LiveProcesses() const {
  std::vector<SimProcess*> live;
  for (const auto& agent : agents_) {
    for (SimProcess* process : agent->LiveProcesses()) live.push_back(process);
  }
  return live;
}

void SimCluster::Cut(HostIndex from, HostIndex to) {
  world_.Log("nothing gets from host {} to host {} any more", from, to);
  world_.links.Cut(from, to);
  cuts_.push_back({from, to, world_.now_ns()});
  const HostIndex host = std::max(from, to);
  if (std::min(from, to) != 0) return;
  world_.driver.At(world_.now_ns() + kKeepaliveNs,
                   [this, from, to, host, since_ns = world_.now_ns()] {
                     const bool lasts = std::ranges::any_of(cuts_, [&](const CutLink& cut) {
                       return cut.from == from && cut.to == to && cut.since_ns == since_ns;
                     });
                     if (SimAgent* cut_off = agent(host); lasts && cut_off != nullptr)
                       cut_off->LoseConnection();
                   });
}

void SimCluster::Heal(HostIndex from, HostIndex to) {
  world_.Log("the way from host {} to host {} is there again", from, to);
  std::erase_if(cuts_, [&](const CutLink& cut) { return cut.from == from && cut.to == to; });
  for (const auto& [epoch, a, b] : std::exchange(cut_ranks_, {})) {
    world_.networks.at(epoch)->Heal(Rank(a), Rank(b));
  }
  world_.links.Heal(from, to);
  CutRanks();
}

void SimCluster::CutRanks() {
  if (cuts_.empty()) return;
  const std::vector<SimProcess*> live = LiveProcesses();
  for (const CutLink& cut : cuts_) {
    for (const SimProcess* a : live) {
      for (const SimProcess* b : live) {
        if (a->host() != cut.from || b->host() != cut.to || !a->start() || !b->start()) continue;
        const JobEpoch epoch{a->start()->job(), a->start()->epoch()};
        if (epoch != JobEpoch{b->start()->job(), b->start()->epoch()}) continue;
        const auto network = world_.networks.find(epoch);
        if (network == world_.networks.end()) continue;
        const int32_t from = a->start()->rank();
        const int32_t to = b->start()->rank();
        if (!cut_ranks_.emplace(epoch, from, to).second) continue;
        network->second->Cut(Rank(from), Rank(to));
      }
    }
  }
}

// ---- invariants --------------------------------------------------------------------------------

void SimCluster::Look() {
  CutRanks();
  const bool later = std::exchange(looked_ns_, world_.now_ns()) != world_.now_ns();
  for (const auto& agent : agents_) {
    for (const auto& process : agent->processes()) {
      if (!process->alive() || process->swept()) continue;
      const SeenProcess seen = See(*process, *agent);
      world_.invariants.LookAtAgentOf(seen);
      if (!later) continue;  // what hangs on the time alone
      world_.invariants.LookAtJobOf(seen, world_.now_ns());
      if (!process->frozen()) {
        world_.invariants.LookAtWaits(process->pid(), process->waits(), world_.now_ns());
      }
    }
  }
}

SeenProcess SimCluster::See(const SimProcess& process, const SimAgent& agent) {
  SeenProcess seen{.pid = process.pid(), .host = agent.host(), .agent_lives = agent.alive()};
  if (!process.start()) return seen;
  seen.rank = process.start()->rank();
  seen.job = process.start()->job();
  JobLife* job = coordinator() == nullptr ? nullptr : coordinator()->Find(seen.job);
  seen.job_lives = job != nullptr && !job->ended();
  return seen;
}

}  // namespace troupe::testing
