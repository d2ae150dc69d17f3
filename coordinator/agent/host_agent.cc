#include "coordinator/agent/host_agent.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <utility>
#include <vector>

namespace troupe {
namespace {

constexpr size_t kLastLines = 5;
constexpr size_t kLineBytesMax = 4096;
constexpr int64_t kMsNs = 1'000'000;

std::string InWords(const std::tuple<uint64_t, uint64_t, int32_t>& key) {
  return fmt::format("rank {} of job {}", std::get<2>(key), std::get<0>(key));
}

}  // namespace

HostAgent::HostAgent(HostAgentOptions options, Scheduler& scheduler)
    : options_(std::move(options)), scheduler_(scheduler) {}

HostAgent::~HostAgent() {
  scheduler_.Cancel(beat_);
  for (auto& [key, rank] : ranks_) {
    scheduler_.RemovePoller(rank.log_poller);
    ::close(rank.log_fd);
  }
}

void HostAgent::Say(const proto::FromAgent& message) {
  if (send_) send_(message);
}

void HostAgent::Connected(std::function<void(const proto::FromAgent&)> send) {
  send_ = std::move(send);
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
  KillAll();  // A2
}

void HostAgent::Beat() {
  const int64_t now_ns = scheduler_.clock().NowNs();
  if (now_ns - last_heard_ns_ > dead_after_ms_ * kMsNs) KillAll();  // A2
  for (auto& [key, rank] : ranks_) WatchRank(key, rank, now_ns);
  proto::FromAgent message;
  message.mutable_heartbeat()->set_steady_ns(now_ns);
  Say(message);
  beat_ = scheduler_.After(heartbeat_ms_, [this] { Beat(); });
}

void HostAgent::WatchRank(const RankKey& key, RankProcess& rank, int64_t now_ns) {
  if (rank.killed_ns != 0) {
    if (now_ns - rank.killed_ns > kKillAgainMs * kMsNs) KillRank(rank);  // A5
    return;
  }
  const int64_t silent_ns = now_ns - rank.last_heard_ns;
  const bool told = rank.silence_told_ns != 0;
  if (silent_ns < kSilentMs * kMsNs || rank.link->closed() ||
      (told && now_ns - rank.silence_told_ns < kTellAgainMs * kMsNs)) {
    return;
  }
  const bool stopped = IsStopped(rank.process->pid());
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
      return;
    case proto::ToAgent::kSpawn:
      return Spawn(command.spawn());
    case proto::ToAgent::kTell: {
      const auto& tell = command.tell();
      const auto rank = ranks_.find({tell.job(), tell.epoch(), tell.rank()});
      if (rank != ranks_.end()) rank->second.link->Send(tell.message().SerializeAsString());
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
  const Status started = StartRankProcess(key, spawn);
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

Status HostAgent::StartRankProcess(const RankKey& key, const proto::SpawnRank& spawn) {
  // A killed one is on its way out and holds no slot.
  const auto lives = [](const auto& entry) { return entry.second.killed_ns == 0; };
  if (std::ranges::count_if(ranks_, lives) >= options_.slots) {  // A6
    return MakeError(ErrorCode::kResourceExhausted,
                     "{} is not started: all {} slots of host agent {} are in use", InWords(key),
                     options_.slots, options_.name);
  }
  int control[2];
  int log[2];
  const auto no_descriptors = [&key](int number) {
    return MakeError(ErrorCode::kResourceExhausted, "{} gets no descriptors: {}", InWords(key),
                     std::strerror(number));
  };
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0) {
    return no_descriptors(errno);
  }
  if (::pipe2(log, O_CLOEXEC) != 0) {
    const int number = errno;
    ::close(control[0]);
    ::close(control[1]);
    return no_descriptors(number);
  }
  auto process = ChildProcess::Start(scheduler_,
                                     {.path = options_.rank_program,
                                      .arguments = {"--control-fd", "3"},
                                      .control_fd = control[1],
                                      .stdout_fd = log[1],
                                      .stderr_fd = log[1],
                                      .minds_parent_only = true},
                                     [this, key](ExitReport report) { RankEnded(key, report); });
  ::close(control[1]);
  ::close(log[1]);
  if (!process.ok()) {
    ::close(control[0]);
    ::close(log[0]);
    return std::move(process).error();
  }
  RankProcess& rank = ranks_[key];
  rank.process = *std::move(process);
  rank.last_heard_ns = scheduler_.clock().NowNs();
  rank.log_fd = log[0];
  ::fcntl(rank.log_fd, F_SETFL, O_NONBLOCK);
  rank.log_poller =
      scheduler_.AddPoller([this, key] { return ReadLog(key); }, rank.log_fd, [] { return true; });
  rank.link = std::make_unique<FrameLink>(
      scheduler_, control[0],
      FrameLink::Handlers{
          .on_frame = [this, key](std::string_view frame) -> Status {
            proto::FromRank message;
            if (!message.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
              return MakeError(ErrorCode::kCorrupt, "{} sent {} bytes that are no message",
                               InWords(key), frame.size());
            }
            RankSpoke(key, message);
            return {};
          },
          // Its end follows, or its bytes were bad: either way it has no voice any more.
          .on_closed =
              [this, key](const Error& error) {
                if (error.code != ErrorCode::kCorrupt) return;
                ranks_.at(key).cause = error.message;
                KillRank(ranks_.at(key));
              }});
  proto::ToRank order;
  *order.mutable_start() = spawn.start();
  rank.link->Send(order.SerializeAsString());
  return {};
}

void HostAgent::RankSpoke(const RankKey& key, const proto::FromRank& message) {
  RankProcess& rank = ranks_.at(key);
  rank.last_heard_ns = scheduler_.clock().NowNs();
  if (std::exchange(rank.silence_told_ns, 0) != 0) TellSilence(key, 0, false);
  if (message.has_alive()) {
    rank.is_alive = true;
    return;
  }
  proto::FromAgent from;
  auto* said = from.mutable_rank_said();
  said->set_job(std::get<0>(key));
  said->set_epoch(std::get<1>(key));
  said->set_rank(std::get<2>(key));
  *said->mutable_message() = message;
  Say(from);
}

int HostAgent::ReadLog(const RankKey& key) {
  const auto found = ranks_.find(key);
  if (found == ranks_.end()) return 0;
  RankProcess& rank = found->second;
  std::string lines;
  char chunk[8192];
  ssize_t got = 0;
  while ((got = ::read(rank.log_fd, chunk, sizeof(chunk))) > 0) {
    lines.append(chunk, static_cast<size_t>(got));
  }
  if (lines.empty()) return 0;
  for (const char c : lines) {
    if (c != '\n') {
      if (rank.unfinished_line.size() < kLineBytesMax) rank.unfinished_line += c;
      continue;
    }
    rank.last_lines.push_back(std::exchange(rank.unfinished_line, {}));
    if (rank.last_lines.size() > kLastLines) rank.last_lines.pop_front();
  }
  proto::FromAgent message;
  auto* log = message.mutable_rank_log();
  log->set_job(std::get<0>(key));
  log->set_epoch(std::get<1>(key));
  log->set_rank(std::get<2>(key));
  log->set_lines(lines);
  Say(message);
  return 1;
}

void HostAgent::RankEnded(const RankKey& key, ExitReport report) {
  auto rank = ranks_.find(key);
  if (rank == ranks_.end()) return;
  // Its last words lie in the socket and in the pipe.
  if (!rank->second.link->closed()) rank->second.link->Progress();
  ReadLog(key);
  proto::FromAgent message;
  auto* exited = message.mutable_rank_exited();
  exited->set_job(std::get<0>(key));
  exited->set_epoch(std::get<1>(key));
  exited->set_rank(std::get<2>(key));
  exited->set_exit_code(report.exit_code);
  exited->set_signal(report.signal);
  for (const std::string& line : rank->second.last_lines) exited->add_last_lines(line);
  exited->set_cause(rank->second.cause);
  scheduler_.RemovePoller(rank->second.log_poller);
  ::close(rank->second.log_fd);
  // The process' own callback runs: it may not be destroyed under itself.
  scheduler_.Post([gone = std::make_shared<RankProcess>(std::move(rank->second))] {});
  ranks_.erase(rank);
  Say(message);  // A3
}

void HostAgent::KillRank(RankProcess& rank) {
  rank.killed_ns = std::max<int64_t>(scheduler_.clock().NowNs(), 1);
  rank.process->Signal(SIGKILL);
}

void HostAgent::Kill(uint64_t job, uint64_t epoch) {
  for (auto& [key, rank] : ranks_) {
    if (std::get<0>(key) == job && std::get<1>(key) == epoch) KillRank(rank);
  }
}

void HostAgent::KillAll() {
  for (auto& [key, rank] : ranks_) KillRank(rank);
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
