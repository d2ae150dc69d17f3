#include "tests/simulation/scenario.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <utility>

#include "runtime/format/checkpoint_manifest.h"
#include "tests/simulation/sim_client.h"

namespace troupe::testing {
namespace {

constexpr int64_t kMsNs = 1'000'000;
constexpr int64_t kSecondNs = 1'000 * kMsNs;
constexpr int64_t kFaultBeforeNs = 900 * kMsNs;  // a job without a fault takes about as long
constexpr int64_t kRepairNs = 3 * kSecondNs;     // until somebody starts again what died
constexpr int64_t kCalmNs = 5 * kSecondNs;       // until everybody knows that all is well
constexpr int64_t kJobLimitNs = 600 * kSecondNs;
constexpr int64_t kSweepLimitNs = 120 * kSecondNs;
constexpr const char* kData = "/data/text.txt";
constexpr const char* kRunDirectory = "/runs/small";

class Scenario {
 public:
  explicit Scenario(uint64_t seed)
      : fault_(static_cast<SimFault>(seed % kSimFaults)),
        num_ranks_(2 + static_cast<int>(Draw(seed, "test.ranks") * 3)),
        cluster_({.seed = seed, .slots = (num_ranks_ + 1) / 2}) {}

  SimOutcome Run() {
    WriteData();
    ArrangeFault();
    SimClient first(cluster_, loss());
    Attempt(first, Request({}));
    CheckFirst(first);
    Repair();
    const bool succeeded = first.result() && first.result()->exit_code() == 0;
    if (!succeeded && Holds()) GoOn();
    // Nothing is left of them.
    if (Holds() &&
        !cluster_.RunUntil([this] { return cluster_.LiveProcesses().empty(); }, kSweepLimitNs)) {
      Violate("ranks of ended jobs live on");
    }
    outcome_.violation = world().invariants.violation();
    outcome_.log = world().log;
    outcome_.fault = fault_;
    outcome_.struck = struck_;
    outcome_.end_ns = world().now_ns();
    return outcome_;
  }

 private:
  static double Draw(uint64_t seed, std::string_view name) {
    return UniformAt(RandomKey(seed, name), 0);
  }
  double Draw(std::string_view name) { return world().Draw(name); }
  int DrawInt(std::string_view name, int least, int most) {
    return least + static_cast<int>(Draw(name) * (most - least + 1));
  }
  SimWorld& world() { return cluster_.world(); }
  int num_microbatches() const { return 2 * num_ranks_; }
  double loss() const { return (num_microbatches() - 1) / 2.0; }  // cost_stage.h
  bool Holds() { return world().invariants.violation().empty(); }
  template <typename... Args>
  void Violate(fmt::format_string<Args...> format, Args&&... args) {
    world().invariants.Violate(format, std::forward<Args>(args)...);
  }

  // ---- the job ---------------------------------------------------------------------------------

  void WriteData() {
    CHECK(world().shared.CreateDirectories("/data").ok());
    CHECK(WriteFileAtomically(world().shared, kData, std::string(400, 'x')).ok());
  }

  proto::JobSpec Spec() {
    proto::JobSpec spec;
    spec.set_spec_version(1);
    spec.set_kind("pretrain");
    spec.set_name("small");
    auto& model = *spec.mutable_model();
    model.set_hidden_size(4);
    model.set_intermediate_size(4);
    model.set_num_hidden_layers(8);
    model.set_num_attention_heads(1);
    model.set_num_key_value_heads(1);
    model.set_vocab_size(256);
    model.set_max_position_embeddings(8);
    auto& data = *spec.mutable_data();
    data.set_train(kData);
    data.set_val_fraction(0.2);
    constexpr std::array kSchedules = {"1f1b", "gpipe", "zb-h1", "interleaved-1f1b"};
    spec.mutable_parallelism()->set_pp(num_ranks_);
    spec.mutable_parallelism()->set_schedule(
        kSchedules[static_cast<size_t>(DrawInt("test.schedule", 0, 3))]);
    auto& batch = *spec.mutable_batch();
    batch.set_micro_batch_size(1);
    batch.set_global_batch_size(num_microbatches());
    batch.set_seq_len(4);
    spec.mutable_optimizer()->set_lr(1e-3);
    spec.mutable_train()->set_steps(DrawInt("test.steps", 2, 5));
    spec.mutable_train()->set_seed(1);
    spec.mutable_checkpoint()->set_every(DrawInt("test.checkpoint", 0, 2));
    spec.mutable_checkpoint()->set_keep(2);
    if (DrawInt("test.eval", 0, 3) == 0) {
      spec.mutable_eval()->set_every(2);
      spec.mutable_eval()->set_batches(1);
    }
    if (DrawInt("test.parity", 0, 4) == 0) spec.mutable_eval()->set_check_against("single_worker");
    spec.mutable_log()->mutable_trace()->set_steps(0);
    return spec;
  }
  proto::SubmitRequest Request(const std::string& resume_from) {
    if (!spec_) spec_ = Spec();
    proto::SubmitRequest request;
    request.set_submission_id(fmt::format("submission-{}", ++num_submissions_));
    *request.mutable_spec() = *spec_;
    request.set_run_directory(kRunDirectory);
    request.set_resume_from(resume_from);
    // Where the first one did not get to a checkpoint its folder stays as it is.
    if (num_submissions_ > 1 && resume_from.empty()) request.set_run_directory("/runs/small-2");
    return request;
  }

  void Attempt(SimClient& client, proto::SubmitRequest request) {
    const auto ready = [this] { return cluster_.coordinator() != nullptr; };
    if (!cluster_.RunUntil(ready, kJobLimitNs)) return Violate("there is no coordinator");
    client.Submit(std::move(request));
    if (!cluster_.RunUntil([&client] { return client.over(); }, kJobLimitNs)) {
      Violate("job {} has not ended after {} s", client.job(), kJobLimitNs / kSecondNs);
    }
  }

  void GoOn() {
    const auto newest =
        FindNewestCheckpoint(world().shared, JoinPath(kRunDirectory, "checkpoints"));
    if (!newest.ok()) return Violate("{}", newest.error().message);
    const int64_t step = *newest ? (*newest)->manifest.step : 0;
    world().Log("once more, from step {}", step);
    SimClient second(cluster_, loss());
    Attempt(second, Request(*newest ? (*newest)->folder : ""));
    if (!Holds()) return;
    if (second.lost() || second.refusal() || second.result()->exit_code() != 0) {
      return Violate("without a fault the job does not get to its end: {}",
                     second.refusal().value_or(second.result() ? second.result()->reason()
                                                               : "its coordinator was lost"));
    }
    ++outcome_.jobs_succeeded;
    if (second.first_step() && *second.first_step() != step + 1) {
      Violate("it went on with step {}, from a checkpoint of step {}", *second.first_step(), step);
    }
    CheckSteps(second, step);
  }

  void CheckSteps(const SimClient& client, int64_t from) {
    const int64_t last = client.first_step() ? client.last_step() : from;
    if (last != spec_->train().steps()) {
      Violate("job {} has succeeded at step {} of {}", client.job(), last, spec_->train().steps());
    }
  }

  // ---- the fault -------------------------------------------------------------------------------

  int64_t DrawFaultNs() { return world().DrawNs("test.fault.time", 0, kFaultBeforeNs); }

  SimProcess* Victim() {
    const auto live = cluster_.LiveProcesses();
    if (live.empty()) return nullptr;
    SimProcess* victim =
        live[static_cast<size_t>(Draw("test.victim") * static_cast<double>(live.size()))];
    return victim->start() ? victim : nullptr;
  }
  static std::string InWords(const SimProcess& process) {
    const proto::StartRank& start = *process.start();
    return fmt::format("{}rank {} (host host-{}", start.reference_run() ? "reference run's " : "",
                       start.rank(), process.host());
  }

  void ArrangeFault() {
    world().driver.At(DrawFaultNs(), [this] { Strike(); });
  }

  void Strike() {
    world().Log("fault: {}", NameOf(fault_));
    switch (fault_) {
      case SimFault::kNone:
        return;
      case SimFault::kKillRank:
      case SimFault::kKillRankInWork:
        return KillRank();
      case SimFault::kStopRank:
        return StopRank();
      case SimFault::kKillAgent:
        return KillAgent();
      case SimFault::kKillCoordinator:
        struck_ = true;
        cluster_.KillCoordinator();
        return Later(kRepairNs, [this] { cluster_.StartCoordinator(); });
      case SimFault::kCut:
        return Cut();
      case SimFault::kSlowLinks:
        return SlowLinks();
      case SimFault::kStillDisk:
        struck_ = true;
        return StillDisk();
      case SimFault::kFullDisk:
        struck_ = true;
        return FillDisk();
    }
  }
  void Later(int64_t delay_ns, std::function<void()> act) {
    calm_ns_ = std::max(calm_ns_, world().now_ns() + delay_ns);
    world().driver.At(world().now_ns() + delay_ns, std::move(act));
  }

  void KillRank() {
    SimProcess* victim = Victim();
    if (victim == nullptr) return;
    const auto note = [this, victim] {
      struck_ = must_fail_ = true;
      causes_ = {InWords(*victim) + "*was killed by signal 9 (SIGKILL)"};
    };
    if (fault_ == SimFault::kKillRank) {
      note();
      return victim->Die({.signal = SIGKILL});
    }
    victim->DieAtChange(DrawInt("test.change", 1, 40), note);
  }

  void StopRank() {
    SimProcess* victim = Victim();
    if (victim == nullptr) return;
    struck_ = true;
    const bool lasts = Draw("test.lasts") < 0.5;
    must_fail_ = lasts;
    may_fail_ = lasts;
    causes_ = {InWords(*victim) + "*has said nothing for*it is stopped",
               InWords(*victim) + "*did not say Hello", "not every rank ended within"};
    victim->Freeze(true);
    Later(lasts ? 90 * kSecondNs : world().DrawNs("test.stop", kMsNs, 8 * kSecondNs),
          [victim] { victim->Freeze(false); });
  }

  void KillAgent() {
    const HostIndex host = DrawInt("test.host", 1, 2);
    SimAgent* agent = cluster_.agent(host);
    struck_ = true;
    may_fail_ = true;  // its ranks may be on their way
    for (const SimProcess* process : agent->LiveProcesses())
      must_fail_ |= process->start().has_value();
    causes_ = {
        fmt::format("(host host-{}*was lost with its host: its agent's connection ended", host),
        "the host of rank 0 was lost before the run on one worker"};
    cluster_.KillAgent(host);
    Later(kRepairNs, [this, host] { cluster_.StartAgent(host); });
  }

  void Cut() {
    constexpr std::array<std::pair<HostIndex, HostIndex>, 6> kLinks = {
        {{0, 1}, {1, 0}, {0, 2}, {2, 0}, {1, 2}, {2, 1}}};
    const auto [from, to] = kLinks[static_cast<size_t>(DrawInt("test.link", 0, 5))];
    struck_ = true;
    may_fail_ = Draw("test.lasts") < 0.5;
    if (from == 0 || to == 0) {
      const HostIndex host = std::max(from, to);
      causes_ = {
          fmt::format("was lost with its host: host agent host-{} was silent", host),
          fmt::format("(host host-{}*was lost with its host: its agent's connection ended", host),
          fmt::format("was killed by its host agent: host agent host-{} heard nothing", host),
          fmt::format("was killed by its host agent: host agent host-{} lost its connection", host),
          "the host of rank 0 was lost before the run on one worker",
          "not every rank ended within"};
    } else {
      causes_ = {"was lost*the link to rank"};
    }
    cluster_.Cut(from, to);
    Later(may_fail_ ? world().DrawNs("test.cut", 60 * kSecondNs, 90 * kSecondNs)
                    : world().DrawNs("test.cut", kMsNs, 8 * kSecondNs),
          [this, from, to] { cluster_.Heal(from, to); });
  }

  void SlowLinks() {
    struck_ = true;
    const double times = 10 + Draw("test.slower") * 500;
    for (const HostIndex host : {1, 2}) {
      world().links.Slow(host, 0, times);
      world().links.Slow(0, host, times);
    }
    Later(10 * kSecondNs, [this] {
      for (const HostIndex host : {1, 2}) {
        world().links.Slow(host, 0, 1);
        world().links.Slow(0, host, 1);
      }
    });
  }

  void StillDisk() {
    SimDisk& disk = *world().disks[static_cast<size_t>(DrawInt("test.host", 0, 2))];
    disk.still_from_ns = world().now_ns();
    disk.still_until_ns = world().now_ns() + world().DrawNs("test.still", kMsNs, 100 * kSecondNs);
    Later(disk.still_until_ns - disk.still_from_ns, [] {});
  }

  void FillDisk() {
    const HostIndex host = DrawInt("test.host", 0, 2);
    FaultyFileSystem& files = world().disks[static_cast<size_t>(host)]->files;
    const int64_t room = DrawInt("test.room", 0, 4000);
    files.SetFaults({.full_after_bytes = files.num_bytes_written() + room});
    may_fail_ = true;
    causes_ = {"the disk is full (injected)"};
    end_fault_ = [&files] { files.SetFaults({}); };
  }

  void Repair() {
    if (end_fault_) end_fault_();
    const int64_t until_ns = std::max(calm_ns_ + kCalmNs, world().now_ns());
    const auto calm = [this, until_ns] {
      return world().now_ns() >= until_ns && cluster_.num_joined() == 2;
    };
    if (Holds() && !cluster_.RunUntil(calm, kJobLimitNs)) {
      Violate("the agents do not come back");
    }
  }

  // ---- what must come of it --------------------------------------------------------------------

  // Whether the parts between the stars follow one another in the text.
  static bool Matches(std::string_view text, std::string_view pattern) {
    for (;;) {
      const size_t star = pattern.find('*');
      const std::string_view part = pattern.substr(0, star);
      const size_t at = text.find(part);
      if (at == std::string_view::npos) return false;
      if (star == std::string_view::npos) return true;
      text.remove_prefix(at + part.size());
      pattern.remove_prefix(star + 1);
    }
  }

  void CheckFirst(const SimClient& first) {
    if (!Holds()) return;
    if (first.lost()) {
      ++outcome_.jobs_failed;
      if (fault_ != SimFault::kKillCoordinator) Violate("the coordinator was lost");
      return;
    }
    const std::string reason =
        first.refusal().value_or(first.result() ? first.result()->reason() : "");
    if (first.result() && first.result()->exit_code() == 0) {
      ++outcome_.jobs_succeeded;
      if (must_fail_) Violate("the job has succeeded all the same");
      return CheckSteps(first, 0);
    }
    ++outcome_.jobs_failed;
    const bool true_cause = std::ranges::any_of(
        causes_, [&reason](const std::string& cause) { return Matches(reason, cause); });
    if (!true_cause || !(may_fail_ || must_fail_)) {
      Violate("the cause is told as \"{}\", not as {}", reason,
              causes_.empty() || !(may_fail_ || must_fail_)
                  ? "a success"
                  : fmt::format("{}", fmt::join(causes_, " or ")));
    }
  }

  const SimFault fault_;
  const int num_ranks_;
  SimCluster cluster_;
  SimOutcome outcome_{};
  std::optional<proto::JobSpec> spec_{};
  int num_submissions_ = 0;
  bool struck_ = false;
  bool may_fail_ = false;
  bool must_fail_ = false;
  std::vector<std::string> causes_{};  // patterns
  int64_t calm_ns_ = 0;
  std::function<void()> end_fault_{};
};

}  // namespace

std::string_view NameOf(SimFault fault) {
  constexpr std::array<std::string_view, kSimFaults> kNames = {
      "none",          "kill a rank",   "kill a rank in its work",
      "stop a rank",   "kill an agent", "kill the coordinator",
      "cut one way",   "slow links",    "a disk stands still",
      "a disk is full"};
  return kNames[static_cast<size_t>(fault)];
}

SimOutcome RunSeed(uint64_t seed) { return Scenario(seed).Run(); }

}  // namespace troupe::testing
