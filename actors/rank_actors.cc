#include "actors/rank_actors.h"

#include <fmt/format.h>

#include <utility>

#include "actors/checkpoint_actor.h"
#include "actors/data_loader_actor.h"
#include "actors/rank_setup.h"
#include "actors/stage_actor.h"

namespace troupe {

namespace {
constexpr int64_t kGroupDeadlineMs = 300'000;
}  // namespace

RankActors::RankActors(const Ground& ground, LoadedRank loaded)
    : ground_(ground),
      self_(ground.start.rank()),
      loaded_(std::move(loaded)),
      groups_(ground.router, ground.plan, ground.ledger, kGroupDeadlineMs) {
  if (ground_.start.reference_run()) return;
  trace_ = TraceWindow(ground_.start.spec().log().trace(), loaded_.committed_step + 1);
}

RankActors::~RankActors() { ground_.seams.scheduler.End(executor_); }

Status RankActors::Spawn(std::function<void(const RankActivity&)> on_progress) {
  RETURN_IF_ERROR(groups_.Open());
  const RankPlace place{ground_.seams.scheduler, ground_.plan, ground_.stream, groups_, self_};
  const std::vector<StageId> held = ground_.plan.StagesOf(self_);
  ExecutorActor::Peers peers;
  std::vector<ActorRef<MeetExecutor>> answering;
  for (const StageId stage : held) {
    const SpawnedStage spawned = SpawnStage(place, stage);
    peers.stages[stage] = spawned;
    answering.emplace_back(spawned);
  }
  if (const SpawnedLoader loader = SpawnLoader(place); !loader.empty()) {
    peers.loader = loader;
    answering.emplace_back(loader);
  }
  MeetRanks(peers);
  ExecutorOptions options = ExecutorOptionsOf(ground_.start.spec(), ground_.plan, self_);
  options.output_buffers += ground_.seams.more_output_buffers;
  options.trace = trace_;
  options.on_progress = std::move(on_progress);
  executor_ = place.scheduler.Spawn<ExecutorActor>({.name = "executor"}, std::move(options),
                                                   std::move(peers));
  for (const auto& actor : answering) RETURN_IF_ERROR(actor.Send(MeetExecutor{executor_}));
  RegisterExecutor(ground_.router, executor_);
  return {};
}

void RankActors::MeetRanks(ExecutorActor::Peers& peers) {
  RankRouter& router = ground_.router;
  const Mesh& mesh = ground_.plan.mesh;
  peers.checkpoint = ground_.seams.scheduler.Spawn<CheckpointActor>(
      {.name = "checkpoint"},
      CheckpointOptions{.rank = self_,
                        .num_ranks = mesh.num_ranks(),
                        .dtype = DTypeOfJob(ground_.start.spec()),
                        .trace = trace_},
      ground_.seams.files, parameters(), ground_.stream,
      Ref<proto::CheckpointDone>(router.Remote<proto::CheckpointDone>(Rank(0), kScheduleIndex)));
  peers.schedule =
      ScheduleRef(router.Remote<proto::Vote, proto::StepDone>(Rank(0), kScheduleIndex));
  for (const Rank other : mesh.GroupOf(Axis::kPp, self_)) {
    if (other == self_) continue;
    peers.neighbours[mesh.PipelineRankOf(other)] =
        router.Remote<WithBulk<Activation>, WithBulk<ActivationGradient>>(other, kExecutorIndex);
  }
}

void RankActors::OnCredit(Rank peer, uint16_t channel) {
  if (channel >= kFirstGroupChannel) return groups_.OnCredit(peer, channel);
  if (!executor_.alive()) return;
  (void)executor_.Send(CreditReturned{ground_.plan.PipelineRankOf(peer), channel});
}

SpawnedStage RankActors::SpawnStage(const RankPlace& place, StageId stage) {
  if (ground_.seams.spawn_stage) return ground_.seams.spawn_stage(place, stage);
  StageOptions options = StageOptionsOf(ground_.start.spec(), ground_.plan, self_, stage);
  options.trace = trace_;
  options.earlier_updates = loaded_.content.earlier_updates;
  options.reductions =
      ReductionsOf(place, stage, [this](StageId copy) { return loaded_.stages.at(copy).get(); });
  return place.scheduler.Spawn<StageActor>({.name = fmt::format("stage {}", stage)},
                                           std::move(options), *loaded_.stages.at(stage),
                                           place.stream);
}

SpawnedLoader RankActors::SpawnLoader(const RankPlace& place) {
  if (ground_.seams.spawn_loader) return ground_.seams.spawn_loader(place);
  std::optional<TokenSource> tokens = std::exchange(loaded_.tokens, std::nullopt);
  if (!tokens) return {};
  const BatchArithmetic& batch = ground_.plan.batch;
  return place.scheduler.Spawn<DataLoaderActor>(
      {.name = "data loader"},
      DataLoaderOptions{.micro_batch_size = batch.micro_batch_size, .seq_len = batch.seq_len},
      std::move(tokens->file), std::move(tokens->order), place.stream);
}

void RankActors::SpawnJob(JobParts parts) {
  const proto::StartRank& start = ground_.start;
  const proto::JobSpec& spec = start.spec();
  std::optional<JobCheckpoints> checkpoints;
  if (!start.reference_run() && ground_.seams.keeps_checkpoints) {
    checkpoints.emplace(ground_.seams.files, start, ground_.plan, loaded_.content);
  }
  JobOptions job{.rebalance = spec.parallelism().rebalance(),
                 .prompt = spec.eval().sample().prompt(),
                 .say = std::move(parts.say),
                 .on_end = std::move(parts.on_end)};
  job_ = ground_.seams.scheduler.Spawn<JobActor>({.name = "job"}, std::move(job),
                                                 std::move(checkpoints), std::move(parts.replanner),
                                                 ground_.stream);
  ScheduleOptions options = ScheduleOptionsOf(start, ground_.plan);
  options.product_flops = parts.product_flops;
  std::vector<RankRef> ranks;
  for (int rank = 0; rank < ground_.plan.mesh.num_ranks(); ++rank) {
    ranks.emplace_back(
        ground_.router.Remote<proto::StepStart, proto::Commit, proto::CheckpointStart>(
            Rank(rank), kExecutorIndex));
  }
  schedule_ = ground_.seams.scheduler.Spawn<ScheduleActor>({.name = "schedule"}, std::move(options),
                                                           std::move(ranks), JobRef(job_));
  ground_.router.Register<proto::Vote, proto::StepDone, proto::CheckpointDone>(kScheduleIndex,
                                                                               schedule_);
}

Status RankActors::Begin() {
  return job_.Send(BeginJob{.schedule = schedule_, .committed_step = loaded_.committed_step});
}

}  // namespace troupe
