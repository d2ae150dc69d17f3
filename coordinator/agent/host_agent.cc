#include "coordinator/agent/host_agent.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <utility>
#include <vector>

#include "runtime/base/bytes_in_words.h"
#include "runtime/base/host_memory.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int64_t kMsNs = 1'000'000;
constexpr int kBacklogLookMs = 10;

std::string InWords(const std::tuple<uint64_t, uint64_t, int32_t>& key) {
  return fmt::format("rank {} of job {}", std::get<2>(key), std::get<0>(key));
}

// What comes again and again, and is not missed.
bool IsTelemetry(const proto::FromRank& message) {
  return message.has_progress() || message.has_spans() || message.has_memory() ||
         message.has_step_memory();
}

}  // namespace

HostAgent::HostAgent(HostAgentOptions options, AgentSeams seams)
    : options_(std::move(options)), seams_(std::move(seams)), scheduler_(seams_.scheduler) {}

HostAgent::~HostAgent() {
  scheduler_.Cancel(beat_);
  scheduler_.Cancel(backlog_timer_);
}

const std::string& HostAgent::name() const { return known_as_.empty() ? options_.name : known_as_; }

void HostAgent::Say(const proto::FromAgent& message) {
  if (!send_) return;
  send_(message);
  if (!backlog_) HeedBacklog();
}

void HostAgent::HeedBacklog() {
  const size_t waiting = waiting_bytes_ ? waiting_bytes_() : 0;
  if (waiting > kWaitingBytesMax) {
    KillAll(fmt::format("{} wait at host agent {}: the coordinator does not take them",
                        BytesInWords(static_cast<double>(waiting)), name()));
  }
  const bool backlog = waiting > (backlog_ ? kBacklogBytesMax / 2 : kBacklogBytesMax);
  if (std::exchange(backlog_, backlog) != backlog) {
    for (auto& [key, rank] : ranks_) rank.process->PausePrints(backlog);
  }
  scheduler_.Cancel(backlog_timer_);
  if (backlog) backlog_timer_ = scheduler_.After(kBacklogLookMs, [this] { HeedBacklog(); });
}

void HostAgent::Connected(std::function<void(const proto::FromAgent&)> send,
                          std::function<size_t()> waiting_bytes) {
  send_ = std::move(send);
  waiting_bytes_ = std::move(waiting_bytes);
  last_heard_ns_ = scheduler_.clock().NowNs();
  proto::FromAgent join;
  join.mutable_join()->set_host(options_.name);
  join.mutable_join()->set_slots(options_.slots);
  join.mutable_join()->set_cores(static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
  Say(join);
  if (stop_asked_.has_stop_asked()) Say(stop_asked_);
  scheduler_.Cancel(beat_);
  beat_ = scheduler_.After(heartbeat_ms_, [this] { Beat(); });
}

void HostAgent::Disconnected() {
  send_ = nullptr;
  waiting_bytes_ = nullptr;
  KillAll(fmt::format("host agent {} lost its connection to the coordinator", name()));  // A2
  HeedBacklog();
}

void HostAgent::Beat() {
  const int64_t now_ns = scheduler_.clock().NowNs();
  if (now_ns - last_heard_ns_ > dead_after_ms_ * kMsNs) {  // A2
    KillAll(fmt::format("host agent {} heard nothing from the coordinator for {:g} s", name(),
                        dead_after_ms_ / 1000.0));
  }
  for (auto& [key, rank] : ranks_) WatchRank(key, rank, now_ns);
  proto::FromAgent message;
  message.mutable_heartbeat()->set_steady_ns(now_ns);
  Say(message);
  beat_ = scheduler_.After(heartbeat_ms_, [this] { Beat(); });
}

void HostAgent::WatchRank(const RankKey& key, HeldRank& rank, int64_t now_ns) {
  if (rank.killed_ns != 0) {
    if (now_ns - rank.killed_ns > kKillAgainMs * kMsNs) KillRank(rank);  // A5
    return;
  }
  const int64_t silent_ns = now_ns - rank.last_heard_ns;
  const bool told = rank.silence_told_ns != 0;
  if (silent_ns < kSilentMs * kMsNs || rank.process->closed() ||
      (told && now_ns - rank.silence_told_ns < kTellAgainMs * kMsNs)) {
    return;
  }
  const bool stopped = rank.process->IsStopped();
  if (!rank.is_alive && !stopped) return;
  rank.silence_told_ns = now_ns;
  TellSilence(key, silent_ns / kMsNs, stopped);
}

void HostAgent::TellSilence(const RankKey& key, int64_t silent_ms, bool stopped) {
  proto::FromAgent message;
  auto* silent = message.mutable_rank_silent();
  silent->set_job(std::get<0>(key));
  silent->set_epoch(std::get<1>(key));
  silent->set_rank(std::get<2>(key));
  silent->set_silent_ms(silent_ms);
  silent->set_stopped(stopped);
  Say(message);
}

void HostAgent::OnCommand(const proto::ToAgent& command) {
  last_heard_ns_ = scheduler_.clock().NowNs();
  switch (command.message_case()) {
    case proto::ToAgent::kWelcome:
      heartbeat_ms_ = std::clamp(command.welcome().heartbeat_ms(), 10, kBeatMsMax);
      dead_after_ms_ = std::max(100, command.welcome().dead_after_ms());
      known_as_ = command.welcome().host();
      return;
    case proto::ToAgent::kSpawn:
      return Spawn(command.spawn());
    case proto::ToAgent::kTell: {
      const auto& tell = command.tell();
      const auto rank = ranks_.find({tell.job(), tell.epoch(), tell.rank()});
      if (rank != ranks_.end()) rank->second.process->Send(tell.message().SerializeAsString());
      return;
    }
    case proto::ToAgent::kKill:
      return Kill(command.kill().job(), command.kill().epoch());
    default:
      return;
  }
}

void HostAgent::Spawn(const proto::SpawnRank& spawn) {
  const RankKey key{spawn.job(), spawn.epoch(), spawn.rank()};
  if (ranks_.contains(key)) return;
  const Status started = StartRank(key, spawn);
  if (started.ok()) return;
  proto::FromAgent message;
  auto* exited = message.mutable_rank_exited();
  exited->set_job(spawn.job());
  exited->set_epoch(spawn.epoch());
  exited->set_rank(spawn.rank());
  exited->set_exit_code(127);
  exited->add_last_lines(started.error().message);
  Say(message);
}

Status HostAgent::StartRank(const RankKey& key, const proto::SpawnRank& spawn) {
  // A killed one is on its way out and holds no slot.
  const auto lives = [](const auto& entry) { return entry.second.killed_ns == 0; };
  if (std::ranges::count_if(ranks_, lives) >= options_.slots) {  // A6
    return MakeError(ErrorCode::kResourceExhausted,
                     "{} is not started: all {} slots of host agent {} are in use", InWords(key),
                     options_.slots, options_.name);
  }
  RankProcess::Handlers handlers;
  handlers.on_frame = [this, key](std::string_view frame) -> Status {
    proto::FromRank message;
    if (!message.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
      return MakeError(ErrorCode::kCorrupt, "{} sent {} bytes that are no message", InWords(key),
                       frame.size());
    }
    RankSpoke(key, message);
    return {};
  };
  handlers.on_closed = [this, key](const Error& error) {
    const auto found = ranks_.find(key);
    if (error.code == ErrorCode::kCorrupt && found != ranks_.end()) {
      KillBecause(found->second, error.message);
    }
  };
  handlers.on_print = [this, key](std::string_view piece) { Printed(key, piece); };
  handlers.on_exit = [this, key](ExitReport report) { RankEnded(key, report); };
  ASSIGN_OR_RETURN(auto process, seams_.start_rank(InWords(key), std::move(handlers)));
  HeldRank& rank = ranks_[key];
  rank.process = std::move(process);
  rank.last_heard_ns = scheduler_.clock().NowNs();
  rank.oom_kills = ReadOomKills(seams_.files);
  rank.process->PausePrints(backlog_);
  proto::ToRank order;
  *order.mutable_start() = spawn.start();
  rank.process->Send(order.SerializeAsString());
  return {};
}

void HostAgent::RankSpoke(const RankKey& key, const proto::FromRank& message) {
  const auto found = ranks_.find(key);
  if (found == ranks_.end()) return;
  HeldRank& rank = found->second;
  rank.last_heard_ns = scheduler_.clock().NowNs();
  if (std::exchange(rank.silence_told_ns, 0) != 0) TellSilence(key, 0, false);
  if (message.has_alive()) {
    rank.is_alive = true;
    return;
  }
  if (backlog_ && IsTelemetry(message)) return;  // A7
  proto::FromAgent from;
  auto* said = from.mutable_rank_said();
  said->set_job(std::get<0>(key));
  said->set_epoch(std::get<1>(key));
  said->set_rank(std::get<2>(key));
  *said->mutable_message() = message;
  Say(from);
}

void HostAgent::Printed(const RankKey& key, std::string_view piece) {
  proto::FromAgent message;
  auto* log = message.mutable_rank_log();
  log->set_job(std::get<0>(key));
  log->set_epoch(std::get<1>(key));
  log->set_rank(std::get<2>(key));
  log->set_lines(std::string(piece));
  Say(message);
}

void HostAgent::RankEnded(const RankKey& key, ExitReport report) {
  auto rank = ranks_.find(key);
  if (rank == ranks_.end()) return;
  rank->second.process->HearLastWords();
  proto::FromAgent message;
  auto* exited = message.mutable_rank_exited();
  exited->set_job(std::get<0>(key));
  exited->set_epoch(std::get<1>(key));
  exited->set_rank(std::get<2>(key));
  exited->set_exit_code(report.exit_code);
  exited->set_signal(report.signal);
  for (const std::string& line : rank->second.process->last_lines()) exited->add_last_lines(line);
  exited->set_cause(rank->second.cause);
  const auto oom_kills = ReadOomKills(seams_.files);
  if (report.signal == SIGKILL && rank->second.killed_ns == 0 && rank->second.oom_kills &&
      oom_kills) {
    exited->set_oom_kills(*oom_kills - *rank->second.oom_kills);
  }
  // The process' own callback runs: it may not be destroyed under itself.
  scheduler_.Post([gone = std::make_shared<HeldRank>(std::move(rank->second))] {});
  ranks_.erase(rank);
  Say(message);  // A3
}

void HostAgent::KillRank(HeldRank& rank) {
  rank.killed_ns = std::max<int64_t>(scheduler_.clock().NowNs(), 1);
  rank.process->Signal(SIGKILL);
}

void HostAgent::Kill(uint64_t job, uint64_t epoch) {
  for (auto& [key, rank] : ranks_) {
    if (std::get<0>(key) == job && std::get<1>(key) == epoch) KillRank(rank);
  }
}

void HostAgent::KillBecause(HeldRank& rank, const std::string& cause) {
  if (rank.killed_ns == 0) rank.cause = cause;
  KillRank(rank);
}

void HostAgent::KillAll(const std::string& cause) {
  const bool news =
      std::ranges::any_of(ranks_, [](const auto& entry) { return entry.second.killed_ns == 0; });
  for (auto& [key, rank] : ranks_) KillBecause(rank, cause);
  if (news) Talk("{}: its ranks are killed\n", cause);
}

void HostAgent::SignalRanks(int signal) {
  for (auto& [key, rank] : ranks_) rank.process->Signal(signal);
}

void HostAgent::AskStop(const std::string& signal, bool preempted) {
  stop_asked_.mutable_stop_asked()->set_signal(signal);
  stop_asked_.mutable_stop_asked()->set_preempted(preempted);
  Say(stop_asked_);
}

}  // namespace troupe
