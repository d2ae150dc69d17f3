#include "actors/rank_actors.h"

#include <fmt/format.h>

#include <utility>

#include "actors/checkpoint_actor.h"
#include "actors/data_loader_actor.h"
#include "actors/rank_reports.h"
#include "actors/rank_setup.h"
#include "actors/stage_actor.h"

namespace troupe {

RankActors::RankActors(const Context& context, LoadedRank loaded)
    : context_(context),
      self_(context.start.rank()),
      loaded_(std::move(loaded)),
      traced_memory_(context.ledger, context.seams.scheduler.clock()),
      groups_(context.router, context.plan, context.ledger, GroupDeadlinesOf(context.start.spec()),
              context.hosts),
      shards_(context.router, ShardRowsOfRank(context.plan, self_),
              GroupDeadlinesOf(context.start.spec()), &traffic_),
      ring_(context.router, RingOfRank(context.plan, self_), GroupDeadlinesOf(context.start.spec()),
            context.ledger, &traffic_) {
  traffic_.on_step = [this](bool begins) { groups_.AtStep(begins); };
  if (context_.start.reference_run()) return;
  trace_ = TraceWindow(context_.start.spec().log().trace(), loaded_.progress.step + 1);
}

RankActors::~RankActors() { context_.seams.scheduler.End(executor_); }

Status RankActors::Spawn(std::function<void(const RankActivity&)> on_progress) {
  RETURN_IF_ERROR(groups_.Open());
  RETURN_IF_ERROR(shards_.Open(trace_));
  on_progress_ = std::move(on_progress);
  RETURN_IF_ERROR(ring_.Open(trace_, [this](const KvHop* hop) {
    activity_.hop = hop == nullptr ? std::nullopt : std::optional(*hop);
    if (hop != nullptr) on_progress_(activity_);
  }));
  const RankPlace place{
      context_.seams.scheduler, context_.plan, context_.stream, groups_, shards_, ring_, self_};
  const std::vector<StageId> held = context_.plan.StagesOf(self_);
  ExecutorActor::Peers peers;
  std::vector<ActorRef<MeetExecutor>> answering;
  for (const StageId stage : held) {
    const SpawnedStage spawned = SpawnStage(place, stage);
    peers.stages[stage] = spawned;
    answering.emplace_back(spawned);
  }
  const SpawnedLoader loader = SpawnLoader(place);
  peers.loader = loader;
  answering.emplace_back(loader);
  MeetRanks(peers);
  ExecutorOptions options = ExecutorOptionsOf(context_.start.spec(), context_.plan, self_);
  options.output_buffers += context_.seams.more_output_buffers;
  options.trace = trace_;
  options.traffic = &traffic_;
  options.memory = &traced_memory_;
  options.on_progress = [this](const RankActivity& activity) {
    activity_ = activity;
    on_progress_(activity_);
  };
  executor_ = place.scheduler.Spawn<ExecutorActor>({.name = "executor"}, std::move(options),
                                                   std::move(peers));
  for (const auto& actor : answering) RETURN_IF_ERROR(actor.Send(MeetExecutor{executor_}));
  RegisterExecutor(context_.router, executor_);
  return {};
}

std::vector<SavedStage> RankActors::SavedStages() {
  std::vector<SavedStage> saved;
  for (const auto& [stage, model] : loaded_.stages) {
    saved.push_back({.parameters = &model->parameters(), .rows = shards_.OfStage(stage)});
  }
  return saved;
}

void RankActors::MeetRanks(ExecutorActor::Peers& peers) {
  RankRouter& router = context_.router;
  const Mesh& mesh = context_.plan.mesh;
  peers.checkpoint = context_.seams.scheduler.Spawn<CheckpointActor>(
      {.name = "checkpoint"},
      CheckpointOptions{.rank = self_,
                        .num_ranks = mesh.num_ranks(),
                        .place = mesh.PipelineRankOf(self_),
                        .num_places = mesh.extent(Axis::kPp),
                        .exports = mesh.ReplicaOf(self_) == 0,
                        .dtype = DTypeOfJob(context_.start.spec()),
                        .trace = trace_},
      context_.seams.files, SavedStages(), context_.ledger, context_.stream, context_.disk,
      std::ref(readers_),
      Ref<proto::CheckpointDone>(router.Remote<proto::CheckpointDone>(Rank(0), kScheduleIndex)));
  peers.schedule =
      ScheduleRef(router.Remote<proto::Vote, proto::StepDone>(Rank(0), kScheduleIndex));
  for (const Rank other : mesh.GroupOf(Axis::kPp, self_)) {
    if (other == self_) continue;
    peers.neighbours[mesh.PipelineRankOf(other)] =
        router.Remote<WithBulk<Activation>, WithBulk<ActivationGradient>>(other, kExecutorIndex);
  }
  const std::vector<Rank> sharing = mesh.GroupOf(Axis::kCp, self_);
  for (const Rank other : sharing) {
    if (sharing.front() != self_ || other == self_) continue;
    peers.followers.push_back(router.Remote<ActionChosen>(other, kExecutorIndex));
  }
}

void RankActors::OnCredit(Rank peer, uint16_t channel) {
  if (channel >= kFirstGroupChannel) return groups_.OnCredit(peer, channel);
  if (channel == kShardChannel) return shards_.OnCredit(peer);
  if (channel >= kKvChannel) return ring_.OnCredit(channel);
  if (!executor_.alive()) return;
  (void)executor_.Send(CreditReturned{context_.plan.PipelineRankOf(peer), channel});
}

void RankActors::OnPeerDown(Rank peer, const Error& cause) {
  groups_.OnPeerDown(peer, cause);
  shards_.OnPeerDown(peer, cause);
  ring_.OnPeerDown(peer, cause);
}

Error RankActors::LossInWords(Rank peer, const Error& cause) const {
  const std::string hop = ring_.OpenHopInWords(peer);
  return hop.empty() ? cause : troupe::Context(hop, cause);
}

SpawnedStage RankActors::SpawnStage(const RankPlace& place, StageId stage) {
  if (context_.seams.spawn_stage) return context_.seams.spawn_stage(place, stage);
  loaded_.stages.at(stage)->Join(place.Sharing());
  StageOptions options = StageOptionsOf(context_.start.spec(), context_.plan, self_, stage);
  options.trace = trace_;
  options.readers = &readers_;
  options.reductions =
      groups_.ReductionsOf(stage, [this](StageId copy) { return loaded_.stages.at(copy).get(); });
  options.siblings = groups_.SiblingsOf(stage);
  options.rows = shards_.OfStage(stage);
  options.stage_of_rank = [this](StageId held) { return loaded_.stages.at(held).get(); };
  return place.scheduler.Spawn<StageActor>({.name = fmt::format("stage {}", stage)},
                                           std::move(options), *loaded_.stages.at(stage),
                                           place.stream);
}

SpawnedLoader RankActors::SpawnLoader(const RankPlace& place) {
  if (context_.seams.spawn_loader) return context_.seams.spawn_loader(place);
  return place.scheduler.Spawn<DataLoaderActor>(
      {.name = "data loader"}, DataLoaderOptionsOf(context_.start.spec(), context_.plan, self_),
      std::exchange(loaded_.tokens, std::nullopt), place.stream);
}

Status RankActors::SpawnJob(JobParts parts) {
  const proto::StartRank& start = context_.start;
  const proto::JobSpec& spec = start.spec();
  std::optional<JobCheckpoints> checkpoints;
  if (!start.reference_run() && context_.seams.keeps_checkpoints) {
    checkpoints.emplace(context_.seams.files, start, context_.plan, loaded_.content);
  }
  JobOptions job{.rebalance = spec.parallelism().rebalance(),
                 .prompt = spec.eval().sample().prompt(),
                 .disk_deadline_ms = WaitDeadlineMs(spec, kDiskWaitMs),
                 .say = std::move(parts.say),
                 .on_end = std::move(parts.on_end)};
  if (spec.data().has_ignore_label()) job.ignore_label = spec.data().ignore_label();
  job_ = context_.seams.scheduler.Spawn<JobActor>({.name = "job"}, std::move(job),
                                                  std::move(checkpoints),
                                                  std::move(parts.replanner), context_.disk);
  ASSIGN_OR_RETURN(std::unique_ptr<Program> program,
                   context_.seams.new_program(start, context_.plan, parts.product_flops));
  std::vector<RankRef> ranks;
  for (int rank = 0; rank < context_.plan.mesh.num_ranks(); ++rank) {
    ranks.emplace_back(
        context_.router.Remote<proto::StepStart, proto::Commit, proto::CheckpointStart>(
            Rank(rank), kExecutorIndex));
  }
  schedule_ = context_.seams.scheduler.Spawn<ScheduleActor>(
      {.name = "schedule"}, ScheduleOptionsOf(spec), std::move(program), std::move(ranks),
      JobRef(job_));
  context_.router.Register<proto::Vote, proto::StepDone, proto::CheckpointDone>(kScheduleIndex,
                                                                                schedule_);
  return {};
}

proto::CommunicationReport RankActors::Communication() const {
  std::vector<CommunicationVolume> sent = groups_.Sent();
  for (const CommunicationVolume& volume : shards_.Sent()) AddVolume(sent, volume);
  for (const CommunicationVolume& volume : ring_.Sent()) AddVolume(sent, volume);
  for (const auto& [kind, outputs] : traffic_.outputs) {
    AddVolume(sent, {Axis::kPp, InputKindName(kind), outputs.count, outputs.bytes});
  }
  proto::CommunicationReport report =
      ReportCommunication(CommunicationOf(context_.plan, self_), sent, traffic_.steps);
  if (context_.plan.batch.context.shared()) {
    ring_.AddWork(*report.mutable_attention());
    AddPredictedAttention(context_.plan, self_, *report.mutable_attention());
  }
  return report;
}

Status RankActors::Begin() {
  return job_.Send(BeginJob{.schedule = schedule_, .progress = loaded_.progress});
}

}  // namespace troupe
