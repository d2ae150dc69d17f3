#include "tests/support/forked_rank.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <utility>

#include "runtime/actor/frame_link.h"
#include "runtime/transport/ucx/ucx_transport.h"
#include "tests/support/idle_stage.h"
#include "tests/support/timed_stage.h"

namespace troupe::testing {
namespace {

// Many ranks share few cores: nobody keeps one only to look whether something has come.
constexpr int64_t kSpinUs = 0;
constexpr int kLastWordsMs = 2000;
constexpr int kCloseMs = 500;

class ForkedRank {
 public:
  ForkedRank(const ForkedJobOptions& options, Rank self, int control_fd)
      : options_(options),
        train_(options.train),
        self_(self),
        link_(scheduler_, control_fd,
              {.on_frame = [this](std::string_view frame) { return OnFrame(frame); },
               .on_closed = [this](const Error&) { scheduler_.Stop(); }}) {
    scheduler_.SetOnDown([this](const Down& down) { Finish(down.error); });
  }
  ~ForkedRank() {
    stream_.reset();  // waits for the work under way
    router_.reset();
    if (transport_) transport_->Close(kCloseMs);
  }

  void Run() {
    Status opened = Open();
    if (!opened.ok()) Finish(std::move(opened));
    scheduler_.Run();
  }

 private:
  Status Open() {
    ASSIGN_OR_RETURN(transport_, UcxTransport::Create({.self = self_}, ledger_));
    proto::FromRank news;
    news.mutable_hello()->set_pid(::getpid());
    news.mutable_hello()->set_transport_address(transport_->LocalAddress());
    Say(news);
    return {};
  }

  Status OnFrame(std::string_view frame) {
    proto::ToRank order;
    if (!order.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
      return MakeError(ErrorCode::kCorrupt, "an order of {} bytes does not parse", frame.size());
    }
    Status status;
    switch (order.message_case()) {
      case proto::ToRank::kPeers:
        status = OnPeers(order.peers());
        break;
      case proto::ToRank::kBegin:
        status = schedule_.Send(BeginTraining{});
        break;
      case proto::ToRank::kShutDown:
        Finish({});
        break;
      default:
        scheduler_.Stop();
    }
    if (!status.ok()) Finish(std::move(status));
    return {};
  }

  Status OnPeers(const proto::Peers& peers) {
    OpenRouter();
    for (const auto& peer : peers.peers()) {
      if (peer.rank() == self_.value) continue;
      RETURN_IF_ERROR(transport_->Connect(Rank(peer.rank()), peer.address()));
    }
    for (const Channel& channel : ChannelsOf(train_, options_.policy)) {
      const uint16_t number =
          channel.kind == InputKind::kActivation ? kActivationChannel : kGradientChannel;
      if (channel.to == self_) {
        RETURN_IF_ERROR(
            transport_->PostSlots(channel.from, number, channel.slots, options_.message_bytes));
      }
      if (channel.from == self_) transport_->SetCredits(channel.to, number, channel.slots);
    }
    SpawnExecutor();
    if (self_.value == 0) SpawnSchedule();
    proto::FromRank news;
    news.mutable_ready();
    Say(news);
    return {};
  }

  void OpenRouter() {
    RankRouter::Options router{.self = self_, .job = JobId(1), .epoch = Epoch(1)};
    router.on_peer_down = [this](Rank peer, const Error& cause) {
      Finish(MakeError(ErrorCode::kPeerDown, "rank {} is gone: {}", peer, cause.message));
    };
    router.on_credit = [this](Rank peer, uint16_t channel) {
      (void)executor_.Send(CreditReturned{peer, channel});
    };
    router.on_drop = [this](DropCause, const Envelope&, const Error& error) { Finish(error); };
    router_ = std::make_unique<RankRouter>(scheduler_, *transport_, std::move(router));
  }

  void SpawnExecutor() {
    stream_ = std::make_unique<ThreadStream>(scheduler_, "compute", kSpinUs);
    InProcessJob::RankContext context{scheduler_, self_, {}, train_, [this] { return executor_; }};
    ExecutorActor::Peers peers;
    for (const StageId stage : train_.StagesOf(self_)) {
      context.stage = stage;
      peers.stages[stage] = scheduler_.Spawn<TimedStage>(
          {.name = fmt::format("stage {}", stage)}, context,
          TimedStage::Options{options_.steps, options_.message_bytes, ledger_, *stream_,
                              *spans_.mutable_spans()});
    }
    peers.loader = scheduler_.Spawn<IdleLoader>({.name = "loader"}, context);
    peers.schedule =
        ScheduleRef(router_->Remote<proto::Vote, proto::StepDone>(Rank(0), kScheduleIndex));
    for (int other = 0; other < train_.num_ranks; ++other) {
      if (other == self_.value) continue;
      peers.neighbours[Rank(other)] =
          router_->Remote<WithBulk<Activation>, WithBulk<ActivationGradient>,
                          WithBulk<SharedGradient>>(Rank(other), kExecutorIndex);
    }
    executor_ = scheduler_.Spawn<ExecutorActor>(
        {.name = "executor"},
        ExecutorOptions{.rank = self_,
                        .train = train_,
                        .policy = options_.policy,
                        .evaluate = ForwardOnly(train_.num_microbatches),
                        .sample = ForwardOnly(1),
                        .boundary = {.dtype = 0,
                                     .rank = 1,
                                     .shape = {options_.message_bytes / 4, 0, 0, 0},
                                     .num_bytes = static_cast<uint64_t>(options_.message_bytes)}},
        std::move(peers));
    RegisterExecutor(*router_, executor_);
  }

  Schedule ForwardOnly(int num_microbatches) const {
    return GenerateForwardOnly(train_.num_ranks, train_.placement, num_microbatches);
  }

  void SpawnSchedule() {
    ScheduleOptions steps{.steps = static_cast<int64_t>(options_.steps.size()),
                          .num_microbatches = train_.num_microbatches,
                          .global_batch_size = train_.num_microbatches,
                          .num_parameters = train_.num_stages,
                          .checkpoint_at_end = false,
                          .seq_len = 1,
                          .learning_rate = [](int64_t) { return 1.0; }};
    std::vector<RankRef> ranks;
    for (int rank = 0; rank < train_.num_ranks; ++rank) {
      ranks.push_back(router_->Remote<proto::StepStart, proto::Commit, proto::CheckpointStart>(
          Rank(rank), kExecutorIndex));
    }
    JobReports reports;
    reports.on_end = [this](Status end, int64_t, bool) { Finish(std::move(end)); };
    schedule_ = scheduler_.Spawn<ScheduleActor>({.name = "schedule"}, std::move(steps),
                                                std::move(ranks), std::move(reports));
    router_->Register<proto::Vote, proto::StepDone, proto::CheckpointDone>(kScheduleIndex,
                                                                           schedule_);
  }

  void Say(const proto::FromRank& news) { link_.Send(news.SerializeAsString()); }
  void Finish(Status end) {
    if (std::exchange(finished_, true)) return;
    Say(spans_);
    proto::FromRank news;
    news.mutable_finished();
    if (!end.ok()) news.mutable_finished()->set_error(end.error().message);
    Say(news);
    link_.Drain(kLastWordsMs);
  }

  const ForkedJobOptions& options_;
  const Schedule& train_;
  const Rank self_;
  MemoryLedger ledger_{};
  proto::FromRank spans_{};
  std::unique_ptr<Transport> transport_{};
  Scheduler scheduler_{{.spin_us = kSpinUs}};
  FrameLink link_;
  std::unique_ptr<RankRouter> router_{};
  std::unique_ptr<Stream> stream_{};
  ExecutorActor::SelfRef executor_{};
  ScheduleActor::SelfRef schedule_{};
  bool finished_ = false;
};

}  // namespace

void RunForkedRank(const ForkedJobOptions& options, Rank self, int control_fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Of every thread to come.
  prctl(PR_SET_TIMERSLACK, 1000);  // ns
  const sched_param lowest{.sched_priority = 1};
  if (options.real_time) sched_setscheduler(0, SCHED_RR, &lowest);
  ForkedRank(options, self, control_fd).Run();
  _exit(0);
}

}  // namespace troupe::testing
