// troupe-rank: what a device runs. It is the worker's root, which alone knows every actor: builds
// them from the job's plan, introduces them to one another and supervises them.
//
//   awaiting start --StartRank--> connecting (Hello sent) --Peers--> loading
//     --weights are there--> ready (Ready sent)
//   rank 0:     ready --Begin--> training --schedule actor ended--> finished (Finished sent)
//   the others: ready --ShutDown--> finished (Finished sent)
//   all:        finished --Leave--> exit
//
//   R1. The end of the control socket ends the process: no rank outlives its agent.
//   R2. An actor that ends other than normally, a lost peer, or a dropped message of this job ends
//       the job: Finished carries the sentence.
//   R3. What waits for a disk (weights, tokens, checkpoints) and what takes long (hashing) is the
//       stream's work: the peers hear from this rank meanwhile.
//   R4. The checkpoints of an earlier run move out of the way when every rank is ready, no sooner.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "actors/checkpoint_actor.h"
#include "actors/data_loader_actor.h"
#include "actors/executor_actor.h"
#include "actors/job_checkpoints.h"
#include "actors/plan/job_orders.h"
#include "actors/plan/job_plan.h"
#include "actors/rank_load.h"
#include "actors/rank_reports.h"
#include "actors/rank_setup.h"
#include "actors/replanner.h"
#include "actors/schedule_actor.h"
#include "actors/stage_actor.h"
#include "actors/stage_set.h"
#include "runtime/actor/frame_link.h"
#include "runtime/base/process_limits.h"
#include "runtime/base/talk.h"
#include "runtime/transport/inproc/inproc_transport.h"
#include "runtime/transport/ucx/ucx_transport.h"

namespace troupe {
namespace {

constexpr int kProgressMs = 20;
constexpr int kReportMs = 200;
constexpr int kAliveMs = 1000;
constexpr int kLossMs = 1000;             // until the transport says who was lost, at most
constexpr int kSilenceMarginMs = 10'000;  // the agent judges a peer's silence before we do
constexpr int kLastWordsMs = 2000;
constexpr int kCloseMs = 500;
constexpr int kDiskWaitMs = 60'000;  // who waits longer for files is told of

// A rank alone has 25 descriptors, and every peer adds one or two; UCX' shared memory has files of
// 4 to 8 MiB. Memory is the plan's to judge.
ProcessNeeds NeedsOf(int world_size) {
  constexpr int64_t kSharedFileBytes = int64_t{8} << 20;
  return {.descriptors = 30 + 2 * int64_t{world_size},
          .file_bytes = world_size > 1 ? kSharedFileBytes : 0};
}

proto::Content ToProto(const ContentIdentity& content) {
  proto::Content words;
  words.set_num_bytes(content.num_bytes);
  words.set_digest(content.digest);
  return words;
}

class RankProgram {
 public:
  RankProgram(Scheduler& scheduler, int control_fd)
      : scheduler_(scheduler),
        link_(scheduler, control_fd,
              {.on_frame = [this](std::string_view frame) { return OnFrame(frame); },
               .on_closed = [this](const Error&) { scheduler_.Stop(); }}) {  // R1
    scheduler_.SetOnDown([this](const Down& down) {
      if (down.error.code != ErrorCode::kPeerDown) return Fail(down.error);
      // It sent to a peer that is being lost: which one, the transport says soon.
      scheduler_.After(kLossMs, [this, error = down.error] { Fail(error); });
    });
    scheduler_.waits().SetOnDeadline(
        [this](const WaitRecord&, const std::string& sentence) { Happened("warning", sentence); });
  }
  ~RankProgram() {
    stream_.reset();            // waits for the work under way
    scheduler_.End(executor_);  // lets go of what it received while the transport is there
    router_.reset();
    if (transport_) transport_->Close(kCloseMs);
  }

 private:
  // ---- orders ----
  Status OnFrame(std::string_view frame) {
    proto::ToRank order;
    if (!order.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
      return MakeError(ErrorCode::kCorrupt, "an order of {} bytes does not parse", frame.size());
    }
    Status status;
    switch (order.message_case()) {
      case proto::ToRank::kStart:
        status = OnStart(std::move(*order.mutable_start()));
        break;
      case proto::ToRank::kPeers:
        status = OnPeers(order.peers());
        break;
      case proto::ToRank::kBegin:
        Begin();
        break;
      case proto::ToRank::kCancel:
        status = schedule_.Send(CancelTraining{.checkpoint = order.cancel().checkpoint()});
        break;
      case proto::ToRank::kStatus: {
        proto::FromRank news;
        *news.mutable_waits() = ReportWaits(scheduler_.waits(), scheduler_.clock());
        Say(news);
        break;
      }
      case proto::ToRank::kShutDown:
        Finish(/*cancelled=*/false);
        break;
      case proto::ToRank::kLeave:
        link_.Drain(kLastWordsMs);
        scheduler_.Stop();
        break;
      default:
        break;
    }
    if (!status.ok()) Fail(std::move(status).error());
    return {};
  }

  Status OnStart(proto::StartRank start) {
    start_ = std::move(start);
    self_ = Rank(start_.rank());
    RETURN_IF_ERROR(CheckProcessLimits("a rank", NeedsOf(start_.world_size())));
    ASSIGN_OR_RETURN(plan_, MakeJobPlan(start_.spec()));
    if (start_.world_size() == 1) {
      transport_ = network_.NewTransport(self_);
    } else {
      ASSIGN_OR_RETURN(transport_, UcxTransport::Create(TransportOptions(), ledger_));
    }
    proto::FromRank news;
    auto* hello = news.mutable_hello();
    hello->set_pid(::getpid());
    hello->set_transport_address(transport_->LocalAddress());
    hello->set_steady_ns(scheduler_.clock().NowNs());
    hello->set_wall_us(scheduler_.clock().WallUs());
    hello->set_cpu(CpuName());
    hello->set_build(BuildId());
    if (const auto memory = ReadHostMemory(files_)) hello->set_memory_bytes(memory->total_bytes);
    hello->set_predicted_bytes(PredictedBytes(*plan_, self_));
    if (MeasuresCosts(start_.spec())) {
      ASSIGN_OR_RETURN(const ModelCosts costs, MeasureCosts(start_.spec(), scheduler_.clock()));
      *hello->mutable_costs() = ToProto(costs);
    }
    hello->set_product_flops(MeasureProductFlops(start_.spec(), scheduler_.clock()));
    Say(news);
    SayAlive();
    return {};
  }

  UcxTransportOptions TransportOptions() {
    UcxTransportOptions options{.self = self_};
    options.silence_ms = start_.spec().resources().peer_silence_seconds() * 1000 + kSilenceMarginMs;
    options.warn = [this](const std::string& text) {
      Talk("{}\n", text);
      if (self_.value == 0) Happened("warning", text);  // all would say the same
    };
    return options;
  }

  Status OnPeers(const proto::Peers& peers) {
    const std::vector<proto::Parallelism> orders(peers.orders().begin(), peers.orders().end());
    if (!orders.empty()) {
      ASSIGN_OR_RETURN(plan_, MakeJobPlan(start_.spec(), orders));
    }
    product_flops_ = peers.product_flops();
    if (plan_->train.num_ranks != start_.world_size()) {
      return MakeError(ErrorCode::kInvalidSpec, "the plan has {} ranks, the job was given {}",
                       plan_->train.num_ranks, start_.world_size());
    }
    if (self_.value == 0) PrepareReplanning(peers);
    RETURN_IF_ERROR(OpenRouter(peers));
    auto stream = std::make_unique<ThreadStream>(scheduler_, "compute");
    RETURN_IF_ERROR(stream->started());
    stream_ = std::move(stream);
    name_ = fmt::format("rank {}", self_);
    auto loaded = std::make_shared<Result<LoadedRank>>(LoadedRank{});
    OnDisk(
        "start", "weights and tokens",
        [this, loaded] {
          const auto memory = ReadHostMemory(files_);
          *loaded = LoadRank(files_, start_, *plan_, memory, ledger_);
        },
        [this, loaded] {
          Status ready = OnLoaded(std::move(*loaded));
          if (!ready.ok()) Fail(std::move(ready).error());
        });
    return {};
  }

  // work() on the stream, then done() on the actor thread; whoever asks why nothing happens is told
  // what is waited for meanwhile. Both names are literals.
  template <typename Work, typename Done>
  void OnDisk(std::string_view activity, std::string_view owed, Work work, Done done) {
    disk_wait_ = scheduler_.waits().Begin({.waiter = name_,
                                           .activity = activity,
                                           .owed = owed,
                                           .from = "files",
                                           .deadline_ms = kDiskWaitMs});
    stream_->Launch(std::move(work), [this, done = std::move(done)](const WorkTime&) mutable {
      disk_wait_.Reset();
      done();
    });
  }

  Status OnLoaded(Result<LoadedRank> result) {
    if (finished_) return {};  // the job ended meanwhile
    ASSIGN_OR_RETURN(LoadedRank loaded, std::move(result));
    models_ = std::move(loaded.stages);
    content_ = loaded.content;
    last_step_ = committed_step_ = loaded.committed_step;
    if (!start_.reference_run()) {
      trace_ = TraceWindow(start_.spec().log().trace(), committed_step_ + 1);
    }
    RETURN_IF_ERROR(SpawnActors(std::move(loaded.tokens)));
    proto::FromRank news;
    auto* ready = news.mutable_ready();
    for (int peer = 0; peer < start_.world_size(); ++peer) {
      if (peer == self_.value) continue;
      auto* lane = ready->add_lanes();
      lane->set_peer(peer);
      lane->set_lane(std::string(LaneName(transport_->LaneTo(Rank(peer)))));
    }
    int64_t num_parameters = 0;
    for (const auto& [stage, model] : models_) {
      num_parameters += model->parameters().num_elements();
    }
    ready->set_num_parameters(num_parameters);
    if (content_.data) *ready->mutable_data() = ToProto(*content_.data);
    if (content_.init_from && start_.resume_from().empty()) {
      *ready->mutable_init_from() = ToProto(*content_.init_from);
    }
    Say(news);
    scheduler_.After(kReportMs, [this] { Report(); });
    return {};
  }

  void PrepareReplanning(const proto::Peers& peers) {
    if (!peers.reason().empty()) Happened("info", peers.reason());
    if (peers.costs().empty()) return;
    std::vector<ModelCosts> costs;
    for (const proto::ModelCosts& of_rank : peers.costs()) costs.push_back(FromProto(of_rank));
    replanner_.emplace(*plan_, std::move(costs));
  }

  // Rank 0, when all are ready.
  void Begin() {
    if (finished_) return;  // it failed while the order was under way: nothing moves for it
    if (!checkpoints_) return SendBegin();
    auto moved = std::make_shared<Result<std::string>>(std::string());
    OnDisk(
        "start", "earlier checkpoints to be set aside",
        [this, moved] { *moved = checkpoints_->StartFrom(committed_step_); },
        [this, moved] {
          if (!moved->ok()) return Fail(std::move(*moved).error());
          if (!(*moved)->empty()) Happened("info", **moved);
          SendBegin();
        });
  }
  void SendBegin() {
    const Status sent = schedule_.Send(BeginTraining{.committed_step = committed_step_});
    if (!sent.ok()) Fail(sent.error());
  }

  // ---- building ----
  Status OpenRouter(const proto::Peers& peers) {
    RankRouter::Options options{
        .self = self_, .job = JobId(start_.job()), .epoch = Epoch(start_.epoch())};
    options.on_peer_down = [this](Rank peer, const Error& cause) {
      lost_peer_ = peer;
      Fail(cause);
    };
    options.on_credit = [this](Rank peer, uint16_t channel) {
      if (executor_.alive()) (void)executor_.Send(CreditReturned{peer, channel});
    };
    options.on_drop = [this](DropCause cause, const Envelope& envelope, const Error& error) {
      if (cause == DropCause::kWrongEpoch) return;
      Fail(MakeError(error.code, "a message of rank {} was dropped ({}): {}", envelope.source_rank,
                     DropCauseName(cause), error.message));
    };
    router_ = std::make_unique<RankRouter>(scheduler_, *transport_, std::move(options));
    for (const auto& peer : peers.peers()) {
      if (peer.rank() == self_.value) continue;
      RETURN_IF_ERROR(transport_->Connect(Rank(peer.rank()), peer.address()));
    }
    return PostSlots(*transport_, start_.spec(), *plan_, self_);
  }

  Status SpawnActors(std::optional<TokenSource> tokens) {
    ExecutorActor::Peers peers;
    for (const auto& [stage, model] : models_) peers.stages[stage] = SpawnStage(stage, *model);
    std::optional<DataLoaderActor::SelfRef> loader;
    if (tokens) {
      loader = scheduler_.Spawn<DataLoaderActor>(
          {.name = "data loader"},
          DataLoaderOptions{.micro_batch_size = plan_->batch.micro_batch_size,
                            .seq_len = plan_->batch.seq_len},
          std::move(tokens->file), std::move(tokens->order), *stream_);
      peers.loader = *loader;
    }
    peers.checkpoint = scheduler_.Spawn<CheckpointActor>(
        {.name = "checkpoint"},
        CheckpointOptions{.rank = self_,
                          .num_ranks = start_.world_size(),
                          .dtype = DTypeOfJob(start_.spec()),
                          .trace = trace_},
        files_, ParametersOf(models_), *stream_,
        Ref<proto::CheckpointDone>(
            router_->Remote<proto::CheckpointDone>(Rank(0), kScheduleIndex)));
    peers.schedule =
        ScheduleRef(router_->Remote<proto::Vote, proto::StepDone>(Rank(0), kScheduleIndex));
    for (int other = 0; other < start_.world_size(); ++other) {
      if (other == self_.value) continue;
      peers.neighbours[Rank(other)] =
          router_->Remote<WithBulk<Activation>, WithBulk<ActivationGradient>,
                          WithBulk<SharedGradient>>(Rank(other), kExecutorIndex);
    }
    ExecutorOptions executor = ExecutorOptionsOf(start_.spec(), *plan_, self_);
    executor.trace = trace_;
    executor.on_progress = [this](const RankActivity& activity) { Progressed(activity); };
    executor_ = scheduler_.Spawn<ExecutorActor>({.name = "executor"}, std::move(executor),
                                                std::move(peers));
    for (const StageActor::SelfRef& stage : stages_) {
      RETURN_IF_ERROR(stage.Send(MeetExecutor{executor_}));
    }
    if (loader) RETURN_IF_ERROR(loader->Send(MeetExecutor{executor_}));
    RegisterExecutor(*router_, executor_);
    if (self_.value == 0) {
      if (!start_.reference_run()) checkpoints_.emplace(files_, start_, *plan_, content_);
      SpawnSchedule();
    }
    return {};
  }

  StageRef SpawnStage(StageId stage, StageModel& model) {
    StageOptions options = StageOptionsOf(start_.spec(), *plan_, self_, stage);
    options.trace = trace_;
    options.earlier_updates = content_.earlier_updates;
    stages_.push_back(scheduler_.Spawn<StageActor>({.name = fmt::format("stage {}", stage)},
                                                   std::move(options), model, *stream_));
    return stages_.back();
  }

  void SpawnSchedule() {
    ScheduleOptions options = ScheduleOptionsOf(start_, *plan_);
    options.product_flops = product_flops_;
    if (replanner_) options.order = [this] { return replanner_->order(); };
    std::vector<RankRef> ranks;
    for (int rank = 0; rank < start_.world_size(); ++rank) {
      ranks.emplace_back(router_->Remote<proto::StepStart, proto::Commit, proto::CheckpointStart>(
          Rank(rank), kExecutorIndex));
    }
    schedule_ = scheduler_.Spawn<ScheduleActor>({.name = "schedule"}, std::move(options),
                                                std::move(ranks), Reports());
    router_->Register<proto::Vote, proto::StepDone, proto::CheckpointDone>(kScheduleIndex,
                                                                           schedule_);
  }

  JobReports Reports() {
    JobReports reports;
    reports.on_step = [this](const proto::StepMetrics& metrics) {
      proto::FromRank news;
      *news.mutable_metrics() = metrics;
      Say(news);
    };
    reports.on_eval = [this](const proto::EvalMetrics& metrics) {
      proto::FromRank news;
      *news.mutable_eval() = metrics;
      Say(news);
    };
    reports.on_sample = [this](const std::vector<int32_t>& tokens) {
      proto::FromRank news;
      news.mutable_sampled()->set_prompt(start_.spec().eval().sample().prompt());
      std::string bytes;
      for (const int32_t token : tokens) bytes.push_back(static_cast<char>(token));
      news.mutable_sampled()->set_continuation(bytes);
      Say(news);
    };
    if (replanner_) AddReplanning(reports);
    if (checkpoints_) {
      AddCheckpoints(reports, *checkpoints_, *stream_, schedule_,
                     [this](const proto::CheckpointCommitted& committed) {
                       proto::FromRank news;
                       *news.mutable_checkpoint() = committed;
                       Say(news);
                     });
    }
    reports.on_end = [this](Status end, int64_t last_step, bool cancelled) {
      last_step_ = last_step;
      if (end.ok()) return Finish(cancelled);
      if (!checkpoints_) return Fail(std::move(end).error());
      OnDisk(
          "end", "removal of the open checkpoint", [this] { checkpoints_->Abandon(); },
          [this, error = std::move(end).error()] { Fail(error); });
    };
    return reports;
  }

  void AddReplanning(JobReports& reports) {
    reports.on_votes = [this](std::span<const proto::Vote> votes) {
      replanner_->AddStep(votes);
      if (const auto changed = replanner_->ReconsiderOrder()) Happened("info", changed->reason);
    };
    if (!start_.spec().parallelism().rebalance()) return;
    reports.on_committed = [this](int64_t steps_left) {
      auto moved = replanner_->ReconsiderLayers(steps_left);
      if (!moved) return false;
      Happened("warning", moved->reason);
      moved_layers_ = std::move(moved->stage_layers);
      return true;
    };
  }

  // ---- news ----
  void SayAlive() {
    proto::FromRank news;
    news.mutable_alive();
    link_.SendTelemetry(news.SerializeAsString());
    scheduler_.After(kAliveMs, [this] { SayAlive(); });
  }
  void Say(const proto::FromRank& news) { link_.Send(news.SerializeAsString()); }
  void Happened(const std::string& level, const std::string& text) {
    proto::FromRank news;
    news.mutable_happening()->set_level(level);
    news.mutable_happening()->set_text(text);
    Say(news);
  }
  // At most one message every kProgressMs; the latest is never more than that old.
  void Progressed(const RankActivity& activity) {
    activity_ = activity;
    if (std::exchange(progress_armed_, true)) return;
    scheduler_.After(kProgressMs, [this] {
      progress_armed_ = false;
      proto::FromRank news;
      news.mutable_progress()->set_step(activity_.step);
      news.mutable_progress()->set_action(InWords(activity_));
      link_.SendTelemetry(news.SerializeAsString());
    });
  }
  void Report() {
    ReportOnce();
    scheduler_.After(kReportMs, [this] { Report(); });
  }
  void ReportOnce() {
    proto::FromRank news;
    *news.mutable_memory() =
        ReportMemory(ledger_, plan_->MemoryOf(self_, ThisVectorIsa()), activity_.step);
    link_.SendTelemetry(news.SerializeAsString());
    if (start_.reference_run()) return;
    *news.mutable_spans() = ReportSpans();
    if (news.spans().spans_size() > 0) link_.SendTelemetry(news.SerializeAsString());
  }
  void Finish(bool cancelled) {
    if (std::exchange(finished_, true)) return;
    if (plan_) ReportOnce();
    auto news = std::make_shared<proto::FromRank>();
    auto* finished = news->mutable_finished();
    finished->set_last_step(last_step_);
    finished->set_cancelled(cancelled);
    finished->mutable_stage_layers()->Assign(moved_layers_.begin(), moved_layers_.end());
    if (!stream_) return Say(*news);
    stream_->Launch(
        [this, finished] {
          if (checkpoints_) finished->set_checkpoint(checkpoints_->newest());
          AddParameterDigests(ParametersOf(models_), *finished);
        },
        [this, news](const WorkTime&) { Say(*news); });
  }
  void Fail(Error error) {
    if (std::exchange(finished_, true)) return;
    proto::FromRank news;
    auto* finished = news.mutable_finished();
    finished->set_error_code(static_cast<int>(error.code) + 1);
    finished->set_error(error.message);
    finished->set_last_step(last_step_);
    if (lost_peer_) finished->set_lost_peer(lost_peer_->value);
    Say(news);
  }

  Scheduler& scheduler_;
  FileSystem& files_ = SystemFiles();
  FrameLink link_;
  proto::StartRank start_{};
  Rank self_{};
  std::optional<JobPlan> plan_{};
  MemoryLedger ledger_{};
  InprocNetwork network_{};
  std::unique_ptr<Transport> transport_{};
  StageSet models_{};
  RunContent content_{};
  std::optional<JobCheckpoints> checkpoints_{};  // rank 0's; used on the stream's thread
  std::optional<Replanner> replanner_{};         // rank 0's
  TraceWindow trace_{};
  double product_flops_ = 0;         // a second, of all ranks; 0: not known
  std::vector<int> moved_layers_{};  // the run goes on elsewhere, with so many a stage
  std::unique_ptr<RankRouter> router_{};
  std::unique_ptr<Stream> stream_{};
  std::string name_{};  // "rank 2", for the wait below
  WaitHandle disk_wait_{};
  std::vector<StageActor::SelfRef> stages_{};
  ExecutorActor::SelfRef executor_{};
  ScheduleActor::SelfRef schedule_{};
  std::optional<Rank> lost_peer_{};  // why this rank fails
  RankActivity activity_{};
  bool progress_armed_ = false;
  int64_t committed_step_ = 0;  // resumed from
  int64_t last_step_ = 0;
  bool finished_ = false;
};

int Main(int argc, char** argv) {
  if (argc != 3 || std::strcmp(argv[1], "--control-fd") != 0) {
    Talk("troupe-rank is started by a host agent: troupe worker --join HOST:PORT\n");
    return ExitCode(ErrorCode::kInvalidSpec);
  }
  SayWhereMemoryRunsOut();
  Scheduler scheduler({.trace_handlers = false});  // nobody is told of them
  RankProgram program(scheduler, std::atoi(argv[2]));
  scheduler.Run();
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
