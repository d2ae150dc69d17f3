// A whole job in one process and on one thread: for every rank a scheduler, an inproc transport, a
// router and an executor; on rank 0 the schedule actor. The test brings the stage and loader
// actors.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/executor_actor.h"
#include "actors/schedule/channels.h"
#include "actors/schedule/generators.h"
#include "actors/schedule_actor.h"
#include "runtime/transport/inproc/inproc_transport.h"

namespace troupe::testing {

struct InProcessJobOptions {
  std::string schedule = "1f1b";
  int num_ranks = 1;
  int num_microbatches = 1;
  std::optional<Schedule> train{};  // in place of the three above
  ExecutionPolicy policy{};
  std::vector<TrainSchedule> others{};  // what a step may run instead (steps.order)
  int64_t boundary_bytes = 0;
  TensorDescriptor boundary{};
  bool tied = false;
  // Of the gradient that a stage shares with another.
  std::function<TensorDescriptor(StageId, SharedWeights)> shared{};
  int slots = 0;           // posted per channel; 0: what the schedule asks for
  int output_buffers = 0;  // of an executor's channel; 0: as many as the network needs
  ScheduleOptions steps{};
  TraceWindow trace{};
  // Where the job runs on another network or clock: one transport a rank, addressed "SCHEME:RANK".
  std::function<std::unique_ptr<Transport>(Rank)> new_transport{};
  std::string address_scheme = "inproc";
  Clock* clock = &SystemClock();
  // Introduces the rank's executor to its stages and loader, once they are there.
  std::function<void(Rank, ExecutorAnswers)> on_executor{};
};

class InProcessJob {
 public:
  // Spawns the stage actor of `stage` on `scheduler`; `executor` takes its answers, valid once the
  // job runs.
  struct RankContext {
    Scheduler& scheduler;
    Rank rank;
    StageId stage;
    const Schedule& schedule;
    std::function<ExecutorActor::SelfRef()> executor;
  };
  using NewStage = std::function<StageRef(const RankContext&)>;
  using NewLoader = std::function<LoaderRef(const RankContext&)>;

  InProcessJob(InProcessJobOptions options, const NewStage& new_stage, const NewLoader& new_loader)
      : options_(std::move(options)) {
    if (options_.train) {
      train_ = *options_.train;
    } else {
      auto train = Generate({.name = options_.schedule,
                             .num_ranks = options_.num_ranks,
                             .num_microbatches = options_.num_microbatches});
      CHECK(train.ok(), "{}", train.error().message);
      train_ = *train;
    }
    exchanges_ = GradientExchangesOf(train_, options_.tied);
    const std::vector<Rank> chain(train_.placement.begin(),
                                  train_.placement.begin() + train_.StagesPerDirection());
    const Schedule evaluate = GenerateForwardOnly(train_.num_ranks, chain, train_.num_microbatches);
    channels_ = WithMoreSlots(ChannelsOf(train_, options_.policy), ChannelsOf(evaluate));
    for (const TrainSchedule& other : options_.others) {
      channels_ = WithMoreSlots(channels_, ChannelsOf(other.schedule, other.policy));
    }
    const Schedule sample = GenerateForwardOnly(train_.num_ranks, chain, 1);
    for (int r = 0; r < train_.num_ranks; ++r) {
      ranks_.push_back(std::make_unique<RankState>(*options_.clock));
    }
    for (int r = 0; r < train_.num_ranks; ++r) OpenRank(Rank(r));
    for (int r = 0; r < train_.num_ranks; ++r) {
      RankState& state = *ranks_[r];
      RankContext context{state.scheduler, Rank(r), StageId(r), train_,
                          [&state] { return state.executor; }};
      ExecutorOptions executor{.rank = Rank(r),
                               .train = train_,
                               .policy = options_.policy,
                               .others = options_.others,
                               .evaluate = evaluate,
                               .sample = sample,
                               .boundary = options_.boundary,
                               .exchanges = exchanges_,
                               .trace = options_.trace};
      // Handed over by pointer, an output's buffer is the receiver's slot until it is read.
      if (!options_.new_transport) executor.output_buffers += MostSlots();
      if (options_.output_buffers > 0) executor.output_buffers = options_.output_buffers;
      for (const GradientExchange& exchange : exchanges_) {
        for (const StageId stage : {exchange.leader, exchange.follower}) {
          executor.shared[{stage, exchange.weights}] = options_.shared(stage, exchange.weights);
        }
      }
      ExecutorActor::Peers peers;
      for (const StageId stage : train_.StagesOf(Rank(r))) {
        context.stage = stage;
        peers.stages[stage] = new_stage(context);
      }
      peers.loader = new_loader(context);
      peers.schedule =
          ScheduleRef(state.router->Remote<proto::Vote, proto::StepDone>(Rank(0), kScheduleIndex));
      for (int other = 0; other < train_.num_ranks; ++other) {
        if (other != r) {
          peers.neighbours[Rank(other)] =
              state.router->Remote<WithBulk<Activation>, WithBulk<ActivationGradient>,
                                   WithBulk<SharedGradient>>(Rank(other), kExecutorIndex);
        }
      }
      state.executor = state.scheduler.Spawn<ExecutorActor>({.name = "executor"},
                                                            std::move(executor), std::move(peers));
      RegisterExecutor(*state.router, state.executor);
      if (options_.on_executor) options_.on_executor(Rank(r), state.executor);
    }
    std::vector<RankRef> executors;
    for (int r = 0; r < train_.num_ranks; ++r) {
      executors.push_back(
          ranks_[0]->router->Remote<proto::StepStart, proto::Commit, proto::CheckpointStart>(
              Rank(r), kExecutorIndex));
    }
    JobReports reports;
    reports.on_step = [this](const proto::StepMetrics& m) { metrics.push_back(m); };
    reports.on_eval = [this](const proto::EvalMetrics& m) { evaluations.push_back(m); };
    reports.on_sample = [this](const std::vector<int32_t>& tokens) { sampled = tokens; };
    reports.on_end = [this](Status status, int64_t step, bool was_cancelled) {
      ended = true;
      end_step = step;
      cancelled = was_cancelled;
      if (!status.ok()) errors.push_back(status.error().message);
    };
    schedule = ranks_[0]->scheduler.Spawn<ScheduleActor>({.name = "schedule"}, options_.steps,
                                                         std::move(executors), std::move(reports));
    ranks_[0]->router->Register<proto::Vote, proto::StepDone, proto::CheckpointDone>(kScheduleIndex,
                                                                                     schedule);
  }

  // For those who run the schedulers themselves.
  void Begin(int64_t committed_step = 0) {
    CHECK(schedule.Send(BeginTraining{committed_step}).ok());
  }
  Scheduler& scheduler(int rank) { return ranks_[rank]->scheduler; }

  // Runs every rank in turn until the job has ended, an actor has failed, or nothing moves.
  void Run(int64_t committed_step = 0) {
    Begin(committed_step);
    for (int idle = 0; !ended && errors.empty() && idle < 3;) {
      int64_t work = 0;
      for (auto& rank : ranks_) work += rank->scheduler.RunUntilIdle();
      idle = work == 0 ? idle + 1 : 0;
      if (after_pass) after_pass();
    }
  }

  RankRouter& router(int rank) { return *ranks_[rank]->router; }

  std::vector<proto::StepMetrics> metrics{};
  std::vector<proto::EvalMetrics> evaluations{};
  std::vector<int32_t> sampled{};
  std::vector<std::string> errors{};
  bool ended = false;
  bool cancelled = false;
  int64_t end_step = 0;
  ScheduleActor::SelfRef schedule{};
  std::function<void()> after_pass{};

 private:
  struct RankState {
    explicit RankState(Clock& clock) : scheduler({.clock = &clock}) {}
    // What the executor received goes while the transport is there, and the transport's last words
    // to it find a scheduler.
    ~RankState() { scheduler.End(executor); }
    Scheduler scheduler;
    std::unique_ptr<Transport> transport{};
    std::unique_ptr<RankRouter> router{};
    ExecutorActor::SelfRef executor{};
  };

  int MostSlots() const {
    int most = options_.slots;
    for (const Channel& channel : channels_) most = std::max(most, channel.slots);
    return most;
  }
  void OpenRank(Rank rank) {
    RankState& state = *ranks_[rank.value];
    state.transport =
        options_.new_transport ? options_.new_transport(rank) : network_.NewTransport(rank);
    for (int other = 0; other < train_.num_ranks; ++other) {
      if (other == rank.value) continue;
      const Status connected = state.transport->Connect(
          Rank(other), fmt::format("{}:{}", options_.address_scheme, other));
      CHECK(connected.ok());
    }
    for (const Channel& channel : channels_) {
      const uint16_t number =
          channel.kind == InputKind::kActivation ? kActivationChannel : kGradientChannel;
      const int slots = options_.slots > 0 ? options_.slots : channel.slots;
      if (channel.to == rank) {
        CHECK(state.transport
                  ->PostSlots(channel.from, number, slots,
                              static_cast<int64_t>(options_.boundary.num_bytes))
                  .ok());
      }
      if (channel.from == rank) state.transport->SetCredits(channel.to, number, slots);
    }
    std::map<Rank, std::pair<int, int64_t>> sums;  // peer → slots, bytes of the largest
    for (const GradientExchange& exchange : exchanges_) {
      const Rank leader = train_.RankOf(exchange.leader);
      const Rank follower = train_.RankOf(exchange.follower);
      if (leader == follower || (leader != rank && follower != rank)) continue;
      auto& [slots, num_bytes] = sums[leader == rank ? follower : leader];
      ++slots;
      num_bytes = std::max(
          num_bytes,
          static_cast<int64_t>(options_.shared(exchange.leader, exchange.weights).num_bytes));
    }
    for (const auto& [peer, sum] : sums) {
      CHECK(state.transport->PostSlots(peer, kSumChannel, sum.first, sum.second).ok());
      state.transport->SetCredits(peer, kSumChannel, sum.first);
    }
    RankRouter::Options router{.self = rank, .job = JobId(1), .epoch = Epoch(1)};
    router.on_credit = [this, rank](Rank peer, uint16_t channel) {
      if (ranks_[rank.value]->executor.alive()) {
        (void)ranks_[rank.value]->executor.Send(CreditReturned{peer, channel});
      }
    };
    router.on_peer_down = [this](Rank, const Error& cause) { errors.push_back(cause.message); };
    router.on_drop = [this](DropCause, const Envelope&, const Error& error) {
      errors.push_back(error.message);
    };
    state.router = std::make_unique<RankRouter>(state.scheduler, *state.transport, router);
    state.scheduler.SetOnDown([this](const Down& down) { errors.push_back(down.error.message); });
  }

  const InProcessJobOptions options_;
  Schedule train_{};
  std::vector<GradientExchange> exchanges_{};
  std::vector<Channel> channels_{};
  InprocNetwork network_{};
  std::vector<std::unique_ptr<RankState>> ranks_{};
};

}  // namespace troupe::testing
