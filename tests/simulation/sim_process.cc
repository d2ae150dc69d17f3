#include "tests/simulation/sim_process.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "tests/simulation/lossy_transport.h"

namespace troupe::testing {
namespace {

constexpr int64_t kMinSocketNs = 20'000;
constexpr int64_t kMaxSocketNs = 200'000;
constexpr int64_t kMinStartNs = 20'000'000;  // from fork to the first order
constexpr int64_t kMaxStartNs = 200'000'000;
constexpr int64_t kMinActionNs = 500'000;
constexpr int64_t kMaxActionNs = 5'000'000;
constexpr int64_t kStuckNs = int64_t{1} << 60;  // years

}  // namespace

SimProcess::SimProcess(SimWorld& world, HostIndex host, int pid, Scheduler& agent,
                       RankProcess::Handlers handlers)
    : world_(world),
      host_(host),
      pid_(pid),
      agent_(agent),
      handlers_(std::make_shared<RankProcess::Handlers>(std::move(handlers))),
      files_(*world.disks[static_cast<size_t>(host)]),
      scheduler_(std::make_unique<Scheduler>(
          SchedulerOptions{.clock = &world.clock, .spin_us = 0, .trace_handlers = false})),
      last_order_ns_(world.now_ns() + world.DrawNs("test.start", kMinStartNs, kMaxStartNs)) {
  root_ = std::make_unique<RankRoot>(Seams());
  const auto runs = [this] { return alive_ && !frozen_; };
  participant_ = world_.driver.Add(
      [this, runs] { return runs() ? scheduler_->RunUntilIdle() : 0; },
      [this, runs] { return runs() ? scheduler_->NextDeadlineNs() : SimDriver::kNever; });
}

SimProcess::~SimProcess() { Sweep(); }

void SimProcess::Sweep() {
  if (root_ == nullptr) return;
  alive_ = false;
  world_.driver.Remove(participant_);
  root_.reset();
  scheduler_.reset();
}

RankSeams SimProcess::Seams() {
  RankSeams seams{.scheduler = *scheduler_, .files = files_};
  seams.new_transport = [this](const TransportNeeds& needs) { return NewTransport(needs); };
  seams.new_stream = [this]() -> Result<std::unique_ptr<Stream>> {
    return std::unique_ptr<Stream>(
        std::make_unique<SimStream>(*scheduler_, world_.driver, world_.work));
  };
  seams.new_disk_stream = seams.new_stream;
  seams.measure = [this](const proto::JobSpec&, proto::Hello& hello) {
    hello.set_pid(pid_);
    hello.set_build("simulated");
    return Status();
  };
  seams.say = seams.say_telemetry = [this](const proto::FromRank& news) { Say(news); };
  seams.leave = [this] { Die({.exit_code = 0}); };
  seams.load = [this](FileSystem&, const proto::StartRank& start, const JobPlan& plan,
                      MemoryLedger& ledger) { return Load(start, plan, ledger); };
  seams.spawn_stage = [this](const RankPlace& place, StageId stage) {
    return SpawnStage(place, stage);
  };
  return seams;
}

SimNetwork& SimProcess::Network() {
  auto& network = world_.networks[{start_->job(), start_->epoch()}];
  if (!network) {
    const int silence_ms = start_->spec().resources().peer_silence_seconds() * 1000;
    network = std::make_unique<SimNetwork>(
        world_.clock, SimNetworkOptions{.seed = world_.seed, .detection_ms = silence_ms + 10'000});
    world_.driver.Add(
        nullptr, [&world = world_, n = network.get()] { return n->NextEventNs(world.now_ns()); });
  }
  return *network;
}

Result<std::unique_ptr<Transport>> SimProcess::NewTransport(const TransportNeeds& needs) {
  const auto loses = [this, self = needs.self](Rank to, const Envelope& envelope) {
    return world_.loses && world_.loses(self, to, envelope);
  };
  return std::unique_ptr<Transport>(
      std::make_unique<LossyTransport>(Network().NewTransport(needs.self), loses));
}

Result<LoadedRank> SimProcess::Load(const proto::StartRank& start, const JobPlan& plan,
                                    MemoryLedger& ledger) {
  ASSIGN_OR_RETURN(LoadedRank loaded, LoadRank(files_, start, plan, std::nullopt, ledger));
  for (const auto& [stage, model] : loaded.stages) {
    models_[stage] = model.get();
    const auto step = StepOf(*model);
    if (!step || *step != loaded.progress.step) {
      world_.invariants.Violate("stage {} of job {} goes on from step {} with other weights",
                                stage.value, start.job(), loaded.progress.step);
    }
    world_.invariants.StageLoaded(start.job(), start.epoch(), stage.value, loaded.progress.step);
  }
  return loaded;
}

SpawnedStage SimProcess::SpawnStage(const RankPlace& place, StageId stage) {
  CostStage::Options options{.work = world_.work, .ledger = stage_bytes_};
  options.draw_cost_ns = [this] { return DrawCostNs(); };
  options.on_update = [this](StageId of, const ApplyUpdate& update) {
    world_.invariants.StageUpdates(start_->job(), start_->epoch(), of.value, update);
  };
  return place.scheduler.Spawn<CostStage>({.name = fmt::format("stage {}", stage)}, place, stage,
                                          *models_.at(stage), std::move(options));
}

int64_t SimProcess::DrawCostNs() {
  if (const auto stuck = std::exchange(stuck_, nullptr)) {
    stuck();
    return kStuckNs;
  }
  return world_.DrawNs("test.action", kMinActionNs, kMaxActionNs);
}

// ---- the control socket ------------------------------------------------------------------------

void SimProcess::Take(std::string frame) {
  last_order_ns_ = std::max(
      last_order_ns_, world_.now_ns() + world_.DrawNs("test.socket", kMinSocketNs, kMaxSocketNs));
  world_.driver.At(last_order_ns_,
                   [this, there = std::weak_ptr<bool>(there_), frame = std::move(frame)] {
                     if (there.expired() || !alive_) return;
                     scheduler_->Post([this, frame] { Order(frame); });
                   });
}

void SimProcess::Order(const std::string& frame) {
  if (!alive_) return;
  proto::ToRank order;
  CHECK(order.ParseFromString(frame));
  if (order.has_start()) start_ = order.start();
  root_->Take(std::move(order));
}

void SimProcess::Say(const proto::FromRank& news) {
  if (!alive_) return;
  if (news.has_happening() && news.happening().level() == "warning") {
    world_.invariants.WarningSaid(pid_, news.happening().text());
  }
  Tell([frame = news.SerializeAsString()](RankProcess::Handlers& handlers) {
    const Status taken = handlers.on_frame(frame);
    CHECK(taken.ok(), "{}", taken.error().message);
  });
}

void SimProcess::Tell(std::function<void(RankProcess::Handlers&)> call) {
  last_word_ns_ = std::max(
      last_word_ns_, world_.now_ns() + world_.DrawNs("test.socket", kMinSocketNs, kMaxSocketNs));
  world_.driver.At(last_word_ns_, [&agent = agent_, call = std::move(call),
                                   weak = std::weak_ptr<RankProcess::Handlers>(handlers_)] {
    if (weak.expired()) return;  // nor is the agent there any more
    agent.Post([call, weak] {
      if (const auto handlers = weak.lock()) call(*handlers);
    });
  });
}

// ---- the machine -------------------------------------------------------------------------------

void SimProcess::Die(ExitReport report) {
  if (!std::exchange(alive_, false)) return;
  files_.Die();
  world_.Log(
      "rank process {} {} ends: exit code {}, signal {}", pid_,
      start_ ? fmt::format("(rank {} of job {}.{})", start_->rank(), start_->job(), start_->epoch())
             : "(not started)",
      report.exit_code, report.signal);
  if (start_) {
    const auto network = world_.networks.find({start_->job(), start_->epoch()});
    if (network != world_.networks.end()) network->second->Kill(Rank(start_->rank()));
  }
  if (handlers_) {
    Tell([this, report](RankProcess::Handlers& handlers) {
      silenced_ = true;
      handlers.on_exit(report);
    });
  }
  world_.driver.At(world_.now_ns(), [this, there = std::weak_ptr<bool>(there_)] {
    if (!there.expired()) Sweep();
  });
}

void SimProcess::Freeze(bool frozen) {
  if (!alive_ || std::exchange(frozen_, frozen) == frozen) return;
  world_.Log("rank process {} {}", pid_, frozen ? "stands still" : "goes on");
}

void SimProcess::DieAtChange(int64_t number, std::function<void()> dies) {
  files_.DieAtChange(number, [this, dies = std::move(dies)] {
    if (!alive_) return;
    dies();
    Die({.signal = SIGKILL});
  });
}

}  // namespace troupe::testing
