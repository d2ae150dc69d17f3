#include "coordinator/ops/attend.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "coordinator/job_life.h"

namespace troupe {
namespace {

constexpr int kSlotsMax = 4096;
constexpr int kSilenceCheckMs = 250;

// The job that an agent's word is about: null unless the rank has its place on that host. An agent
// speaks for its own ranks alone.
template <typename Word>
JobLife* JobOf(State& state, HostId host, const Word& word) {
  const auto job = state.jobs.find(word.job());
  if (job == state.jobs.end() || job->second->HostOf(word.rank()) != host) return nullptr;
  return job->second.get();
}

// Its jobs stop, on their other hosts too; it takes no new ones.
void HostStops(State& state, HostId id, const proto::StopAsked& asked) {
  Host& host = state.hosts.at(id);
  host.leaving = true;
  const std::string cause = fmt::format("{} at host agent {}", asked.signal(), host.name);
  for (auto& [job_id, job] : state.jobs) {
    if (job->RunsOn(id)) job->Cancel({.preempted = asked.preempted(), .cause = cause});
  }
}

}  // namespace

Result<Joined> JoinHost(State& state, Seams seams, const proto::Join& join, AgentPort* port) {
  if (join.slots() < 1 || join.slots() > kSlotsMax) {
    return MakeError(ErrorCode::kInvalidSpec, "--slots {}: use 1 to {}", join.slots(), kSlotsMax);
  }
  const auto taken = [&](const std::string& name) {
    return std::ranges::any_of(state.hosts, [&](const auto& h) { return h.second.name == name; });
  };
  const std::string wanted = join.host().empty() ? "host" : join.host();
  std::string name = wanted;
  for (int i = 2; taken(name); ++i) name = fmt::format("{}-{}", wanted, i);
  Joined joined{.host = state.next_host++};
  state.hosts[joined.host] = {.name = name,
                              .slots = join.slots(),
                              .cores = join.cores(),
                              .build = join.build(),
                              .port = port,
                              .last_heard_ns = seams.scheduler.clock().NowNs()};
  auto* welcome = joined.welcome.mutable_welcome();
  welcome->set_term(state.term);
  welcome->set_host(name);
  welcome->set_heartbeat_ms(state.options.heartbeat_ms);
  welcome->set_dead_after_ms(state.options.dead_after_ms);
  return joined;
}

void AgentSaid(State& state, Seams seams, HostId id, const proto::FromAgent& message) {
  const auto host = state.hosts.find(id);
  if (host == state.hosts.end()) return;
  host->second.last_heard_ns = seams.scheduler.clock().NowNs();
  switch (message.message_case()) {
    case proto::FromAgent::kHeartbeat: {
      // Answered, so that the agent too knows that somebody is there.
      if (host->second.port != nullptr) host->second.port->Send(proto::ToAgent());
      break;
    }
    case proto::FromAgent::kRankSaid: {
      const auto& said = message.rank_said();
      if (JobLife* job = JobOf(state, id, said)) {
        job->RankSaid(said.epoch(), said.rank(), said.message());
      }
      break;
    }
    case proto::FromAgent::kRankExited:
      if (JobLife* job = JobOf(state, id, message.rank_exited())) {
        job->RankExited(message.rank_exited());
      }
      break;
    case proto::FromAgent::kRankLog:
      if (JobLife* job = JobOf(state, id, message.rank_log())) {
        job->RankLogged(message.rank_log());
      }
      break;
    case proto::FromAgent::kRankSilent:
      if (JobLife* job = JobOf(state, id, message.rank_silent())) {
        job->RankSilent(message.rank_silent());
      }
      break;
    case proto::FromAgent::kStopAsked:
      return HostStops(state, id, message.stop_asked());
    default:
      break;
  }
}

Status Attendance::Take(const proto::FromAgent& message) {
  if (host_ != 0) {
    AgentSaid(state_, seams_, host_, message);
    return {};
  }
  if (!message.has_join()) {
    return MakeError(ErrorCode::kInvalidSpec, "an agent's first word is Join");
  }
  ASSIGN_OR_RETURN(const Joined joined, JoinHost(state_, seams_, message.join(), &port_));
  host_ = joined.host;
  port_.Send(joined.welcome);
  StartWhatFits(state_);
  return {};
}

void Attendance::Ended() {
  if (host_ != 0) HostGone(state_, host_, "its agent's connection ended");
}

void DropSilentHosts(State& state, Seams seams) {
  const int64_t now_ns = seams.scheduler.clock().NowNs();
  std::vector<HostId> silent;
  for (const auto& [id, host] : state.hosts) {
    if (now_ns - host.last_heard_ns > int64_t{state.options.dead_after_ms} * 1'000'000) {
      silent.push_back(id);
    }
  }
  for (const HostId id : silent) {
    AgentPort* port = state.hosts[id].port;
    HostGone(state, id,
             fmt::format("host agent {} was silent for {} ms", state.hosts[id].name,
                         state.options.dead_after_ms));
    // An agent that was only stopped for a while finds its stream ended, and joins again.
    if (port != nullptr) port->Close();
  }
}

void WatchHosts(State& state, Seams seams) {
  DropSilentHosts(state, seams);
  seams.scheduler.After(kSilenceCheckMs, [&state, seams] { WatchHosts(state, seams); });
}

}  // namespace troupe
