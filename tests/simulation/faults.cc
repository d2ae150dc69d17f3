#include "tests/simulation/faults.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <utility>

namespace troupe::testing {
namespace {

constexpr int64_t kMsNs = 1'000'000;
constexpr int64_t kSecondNs = 1'000 * kMsNs;
constexpr double kEarly = 0.25;  // of the faults come at a time, the others after a step
constexpr int64_t kEarlyBeforeNs = 500 * kMsNs;
constexpr int64_t kAfterStepNs = 50 * kMsNs;  // a step takes about as long
constexpr int64_t kAgainNs = 5 * kMsNs;
constexpr double kTwo = 0.4;                  // of the seeds whose fault bears a second one
constexpr int64_t kRepairNs = 3 * kSecondNs;  // until somebody starts again what died

// What a rank died of is known to its agent alone, which a cut may keep from saying it.
constexpr char kSaidByPeers[] = "*was lost*the link to rank";

// Nothing else may end a job that is to hang.
bool StandsAlone(SimFault fault) {
  return fault == SimFault::kNone || fault == SimFault::kLoseMessage ||
         fault == SimFault::kStuckStream;
}

std::string InWords(const SimProcess& process) {
  const proto::StartRank& start = *process.start();
  return fmt::format("{}rank {} (host host-{}", start.reference_run() ? "reference run's " : "",
                     start.rank(), process.host());
}

}  // namespace

std::string_view NameOf(SimFault fault) {
  constexpr std::array<std::string_view, kSimFaults> kNames = {"none",
                                                               "kill a rank",
                                                               "kill a rank in its work",
                                                               "stop a rank",
                                                               "kill an agent",
                                                               "kill the coordinator",
                                                               "cut one way",
                                                               "slow links",
                                                               "a disk stands still",
                                                               "a disk is full",
                                                               "the client cancels",
                                                               "a message is lost",
                                                               "a stream is stuck"};
  return kNames[static_cast<size_t>(fault)];
}

Faults::Faults(SimCluster& cluster, uint64_t seed) : cluster_(cluster), world_(cluster.world()) {
  const auto first = static_cast<SimFault>(seed % kSimFaults);
  faults_.push_back({.kind = first});
  if (StandsAlone(first) || Draw("test.two") >= kTwo) return;
  SimFault second = first;
  while (second == first || StandsAlone(second)) {
    second = static_cast<SimFault>(DrawInt("test.second", 1, kSimFaults - 1));
  }
  faults_.push_back({.kind = second});
}

bool Faults::Has(SimFault kind) const {
  return std::ranges::any_of(faults_, [kind](const Fault& fault) { return fault.kind == kind; });
}

void Faults::Shape(proto::JobSpec& spec) const {
  if (Has(SimFault::kKillRankInWork)) {
    spec.mutable_checkpoint()->set_every(std::max(1, spec.checkpoint().every()));
  }
  if (Has(SimFault::kLoseMessage) || Has(SimFault::kStuckStream)) {
    spec.mutable_resources()->set_hang_seconds(kHangSeconds);
  }
}

void Faults::Arrange(SimClient& client, const proto::JobSpec& spec) {
  client_ = &client;
  client.OnStep([this](int64_t step) {
    for (const auto& act : on_step_) act(step);
  });
  for (Fault& fault : faults_) Arrange(fault, spec.train().steps());
}

void Faults::Arrange(Fault& fault, int64_t num_steps) {
  if (Draw("test.early") < kEarly) {
    return world_.driver.At(world_.DrawNs("test.time", 0, kEarlyBeforeNs),
                            [this, &fault] { Strike(fault); });
  }
  const int after = DrawInt("test.step", 1, static_cast<int>(num_steps) - 1);
  on_step_.push_back([this, &fault, after](int64_t step) {
    if (step != after) return;
    world_.driver.At(world_.now_ns() + world_.DrawNs("test.delay", 0, kAfterStepNs),
                     [this, &fault] { Strike(fault); });
  });
}

void Faults::End() {
  over_ = true;
  for (const auto& mend : std::exchange(mend_, {})) mend();
}

void Faults::Strike(Fault& fault) {
  if (over_) return;
  if (TryTo(fault)) return world_.Log("fault: {}", NameOf(fault.kind));
  world_.driver.At(world_.now_ns() + kAgainNs, [this, &fault] { Strike(fault); });
}

bool Faults::TryTo(Fault& fault) {
  switch (fault.kind) {
    case SimFault::kNone:
      return true;
    case SimFault::kKillRank:
      return KillRank(fault, /*in_work=*/false);
    case SimFault::kKillRankInWork:
      return KillRank(fault, /*in_work=*/true);
    case SimFault::kStopRank:
      return StopRank(fault);
    case SimFault::kKillAgent:
      return KillAgent(fault);
    case SimFault::kKillCoordinator:
      return KillCoordinator(fault);
    case SimFault::kCut:
      return Cut(fault);
    case SimFault::kSlowLinks:
      return SlowLinks(fault);
    case SimFault::kStillDisk:
      return StillDisk(fault);
    case SimFault::kFullDisk:
      return FillDisk(fault);
    case SimFault::kCancel:
      return Cancel(fault);
    case SimFault::kLoseMessage:
      return LoseMessage(fault);
    case SimFault::kStuckStream:
      return StickStream(fault);
  }
  return true;
}

void Faults::Later(int64_t delay_ns, std::function<void()> act) {
  calm_ns_ = std::max(calm_ns_, world_.now_ns() + delay_ns);
  world_.driver.At(world_.now_ns() + delay_ns, std::move(act));
}

void Faults::MayFail(std::vector<std::string> causes) {
  for (std::string& cause : causes) ends_.causes.push_back(std::move(cause));
}

SimProcess* Faults::Victim() {
  std::vector<SimProcess*> started;
  for (SimProcess* process : cluster_.LiveProcesses()) {
    if (process->start()) started.push_back(process);
  }
  if (started.empty()) return nullptr;
  return started[static_cast<size_t>(Draw("test.victim") * static_cast<double>(started.size()))];
}

// ---- processes ----------------------------------------------------------------------------------

bool Faults::KillRank(Fault& fault, bool in_work) {
  SimProcess* victim = Victim();
  if (victim == nullptr) return false;
  const auto note = [this, &fault, victim] {
    fault.struck = true;
    ends_.success = false;
    MayFail({InWords(*victim) + "*was killed by signal 9 (SIGKILL)"});
    if (Has(SimFault::kCut)) MayFail({InWords(*victim) + kSaidByPeers});
  };
  if (in_work) {
    victim->DieAtChange(DrawInt("test.change", 1, 8), note);
    return true;
  }
  note();
  victim->Die({.signal = SIGKILL});
  return true;
}

bool Faults::StopRank(Fault& fault) {
  SimProcess* victim = Victim();
  if (victim == nullptr || victim->frozen()) return false;
  fault.struck = true;
  const bool lasts = Draw("test.lasts") < 0.5;
  if (lasts) {
    ends_.success = false;
    MayFail({InWords(*victim) + "*has said nothing for*it is stopped",
             InWords(*victim) + "*did not say Hello", "not every rank ended within"});
  }
  victim->Freeze(true);
  Later(lasts ? 90 * kSecondNs : world_.DrawNs("test.stop", kMsNs, 8 * kSecondNs),
        [victim] { victim->Freeze(false); });
  return true;
}

bool Faults::KillAgent(Fault& fault) {
  const HostIndex host = DrawInt("test.host", 1, 2);
  SimAgent* agent = cluster_.agent(host);
  if (agent == nullptr) return false;
  fault.struck = true;
  for (const SimProcess* process : agent->LiveProcesses()) {
    if (process->start()) ends_.success = false;  // else its ranks may be on their way
  }
  MayFail({fmt::format("(host host-{}*was lost with its host: its agent's connection ended", host),
           "the host of rank 0 was lost before the run on one worker"});
  if (Has(SimFault::kCut)) MayFail({fmt::format("(host host-{}{}", host, kSaidByPeers)});
  cluster_.KillAgent(host);
  Later(kRepairNs, [this, host] { cluster_.StartAgent(host); });
  return true;
}

bool Faults::KillCoordinator(Fault& fault) {
  if (cluster_.coordinator() == nullptr) return false;
  fault.struck = true;
  ends_.loss = true;
  cluster_.KillCoordinator();
  Later(kRepairNs, [this] { cluster_.StartCoordinator(); });
  return true;
}

// ---- links and disks ----------------------------------------------------------------------------

bool Faults::Cut(Fault& fault) {
  constexpr std::array<std::pair<HostIndex, HostIndex>, 6> kLinks = {
      {{0, 1}, {1, 0}, {0, 2}, {2, 0}, {1, 2}, {2, 1}}};
  const auto [from, to] = kLinks[static_cast<size_t>(DrawInt("test.link", 0, 5))];
  fault.struck = true;
  const bool lasts = Draw("test.lasts") < 0.5;
  if (lasts && (from == 0 || to == 0)) {
    const HostIndex host = std::max(from, to);
    MayFail(
        {fmt::format("was lost with its host: host agent host-{} was silent", host),
         fmt::format("(host host-{}*was lost with its host: its agent's connection ended", host),
         fmt::format("was killed by its host agent: host agent host-{} heard nothing", host),
         fmt::format("was killed by its host agent: host agent host-{} lost its connection", host),
         "the host of rank 0 was lost before the run on one worker", "not every rank ended within",
         "after it was killed there is still"});
  } else if (lasts) {
    MayFail({"was lost*the link to rank"});
  }
  cluster_.Cut(from, to);
  Later(lasts ? world_.DrawNs("test.cut", 60 * kSecondNs, 90 * kSecondNs)
              : world_.DrawNs("test.cut", kMsNs, 8 * kSecondNs),
        [this, from, to] { cluster_.Heal(from, to); });
  return true;
}

bool Faults::SlowLinks(Fault& fault) {
  fault.struck = true;
  const double times = 10 + Draw("test.slower") * 500;
  for (const HostIndex host : {1, 2}) {
    world_.links.Slow(host, 0, times);
    world_.links.Slow(0, host, times);
  }
  Later(10 * kSecondNs, [this] {
    for (const HostIndex host : {1, 2}) {
      world_.links.Slow(host, 0, 1);
      world_.links.Slow(0, host, 1);
    }
  });
  return true;
}

bool Faults::StillDisk(Fault& fault) {
  fault.struck = true;
  SimDisk& disk = *world_.disks[static_cast<size_t>(DrawInt("test.host", 0, 2))];
  disk.still_from_ns = world_.now_ns();
  disk.still_until_ns = world_.now_ns() + world_.DrawNs("test.still", kMsNs, 100 * kSecondNs);
  Later(disk.still_until_ns - disk.still_from_ns, [] {});
  return true;
}

bool Faults::FillDisk(Fault& fault) {
  fault.struck = true;
  const HostIndex host = DrawInt("test.host", 0, 2);
  FaultyFileSystem& files = world_.disks[static_cast<size_t>(host)]->files;
  const int64_t room = DrawInt("test.room", 0, 4000);
  files.SetFaults({.full_after_bytes = files.num_bytes_written() + room});
  MayFail({"the disk is full (injected)"});
  mend_.emplace_back([&files] { files.SetFaults({}); });
  return true;
}

// ---- the job itself -----------------------------------------------------------------------------

bool Faults::Cancel(Fault& fault) {
  const bool checkpoint = Draw("test.cancel") < 0.5;
  if (!client_->Cancel(checkpoint, /*kill=*/!checkpoint && Draw("test.cancel") < 0.5)) return false;
  fault.struck = true;
  MayFail({"cancelled"});
  return true;
}

bool Faults::LoseMessage(Fault& fault) {
  world_.loses = [this, &fault, left = DrawInt("test.lose", 0, 5)](
                     Rank from, Rank to, const Envelope& envelope) mutable {
    if (over_ || left-- != 0) return false;
    fault.struck = true;
    world_.Log("lost: from rank {} to rank {}, step {}, microbatch {}", from, to, envelope.step,
               envelope.microbatch);
    ends_.success = false;
    MayFail(
        {fmt::format("nothing has moved for*(resources.hang_seconds = {}): *rank {} waits for "
                     "microbatch {} *from stage*(rank {}) for ",
                     kHangSeconds, to, envelope.microbatch, from)});
    return true;
  };
  return true;
}

bool Faults::StickStream(Fault& fault) {
  SimProcess* victim = Victim();
  if (victim == nullptr) return false;
  victim->StickNextAction([this, &fault, victim] {
    fault.struck = true;
    world_.Log("stuck: rank {}", victim->start()->rank());
    ends_.success = false;
    const std::string waits =
        fmt::format("nothing has moved for*(resources.hang_seconds = {}): rank {} waits for ",
                    kHangSeconds, victim->start()->rank());
    MayFail({waits + "*from its compute stream", waits + "optimizer: update from its stages"});
  });
  return true;
}

}  // namespace troupe::testing
