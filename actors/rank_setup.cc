#include "actors/rank_setup.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "actors/plan/cost_model.h"
#include "actors/plan/job_shape.h"
#include "actors/stage_set.h"

namespace troupe {

int64_t WaitDeadlineMs(const proto::JobSpec& spec, int64_t usual_ms) {
  if (spec.resources().hang_seconds() <= 0) return usual_ms;
  return std::min<int64_t>(usual_ms, int64_t{500} * spec.resources().hang_seconds());
}

ScheduleOptions ScheduleOptionsOf(const proto::JobSpec& spec) {
  ScheduleOptions options;
  options.wait_deadline_ms = WaitDeadlineMs(spec, options.wait_deadline_ms);
  options.saves_alone = spec.parallelism().rebalance();
  return options;
}

Result<std::unique_ptr<Program>> ProgramOf(const proto::StartRank& start, const JobPlan& plan,
                                           double product_flops) {
  const std::string& kind = start.spec().kind();
  TrainOptions options = TrainOptionsOf(start, plan);
  options.product_flops = product_flops;
  std::unique_ptr<Program> program;
  if (Trains(start.spec())) {
    program = std::make_unique<TrainProgram>(std::move(options));
  } else if (kind == "evaluate") {
    program = std::make_unique<EvaluateProgram>(options.evaluate);
  } else if (kind == "sample") {
    program = std::make_unique<SampleProgram>(std::move(options.sample));
  } else {
    return MakeError(ErrorCode::kInvalidSpec, "kind = {}: use pretrain, evaluate or sample", kind);
  }
  return program;
}

TrainOptions TrainOptionsOf(const proto::StartRank& start, const JobPlan& plan) {
  const proto::JobSpec& spec = start.spec();
  TrainOptions options{
      .steps = spec.train().stop_after() > 0 ? spec.train().stop_after() : spec.train().steps(),
      .num_microbatches = plan.batch.num_microbatches,
      .data_parallel = plan.batch.data_parallel,
      .context_parallel = plan.batch.context.num_ranks,
      .global_batch_size = plan.batch.global_batch_size,
      .num_parameters = plan.table.size(),
      .grad_clip = spec.optimizer().grad_clip(),
      .evaluate_every = spec.eval().every(),
      .evaluate = {.rounds = spec.eval().batches(),
                   .num_microbatches = plan.batch.num_microbatches,
                   .data_parallel = plan.batch.data_parallel,
                   .context_parallel = plan.batch.context.num_ranks,
                   .global_batch_size = plan.batch.global_batch_size},
      .checkpoint_every = spec.checkpoint().every(),
      .checkpoint_every_seconds = spec.checkpoint().every_seconds(),
      .checkpoint_at_end = !start.reference_run(),
      .step_flops = ModelFlops(plan.config, plan.batch.seq_len).total() *
                    static_cast<double>(plan.batch.tokens_per_step()),
      .learning_rate = [rate = plan.learning_rate](int64_t step) { return rate.At(step); }};
  if (!spec.eval().has_sample()) return options;
  options.sample = {.tokens = spec.eval().sample().tokens(),
                    .temperature = spec.eval().sample().temperature(),
                    .seed = spec.eval().sample().seed(),
                    .seq_len = static_cast<int32_t>(plan.batch.seq_len)};
  // Bytes as tokens.
  std::ranges::transform(spec.eval().sample().prompt(), std::back_inserter(options.sample.prompt),
                         [](char c) { return static_cast<unsigned char>(c); });
  return options;
}

ExecutorOptions ExecutorOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank) {
  ExecutorOptions options{.rank = rank,
                          .place = plan.PipelineRankOf(rank),
                          .pipeline = plan.mesh.GroupOf(Axis::kPp, rank),
                          .train = plan.train,
                          .policy = plan.policy,
                          .others = plan.others,
                          .evaluate = plan.evaluate,
                          .sample = plan.sample,
                          .boundary = BoundaryTensor(spec, plan),
                          .reductions = plan.reductions,
                          .batch = plan.batch,
                          .data_parallel_rank = plan.mesh.Coordinate(rank, Axis::kDp)};
  const Rank first = plan.mesh.GroupOf(Axis::kCp, rank).front();
  if (first != rank) options.follows = first;
  options.wait_deadline_ms = WaitDeadlineMs(spec, options.wait_deadline_ms);
  return options;
}

StageOptions StageOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank,
                            StageId stage) {
  const proto::Optimizer& optimizer = spec.optimizer();
  return {.rank = rank,
          .stage = stage,
          .last = plan.train.IsLastStage(stage),
          .first_microbatch = plan.train.FirstMicrobatch(stage).value,
          .context_rank = plan.mesh.Coordinate(rank, Axis::kCp),
          .adamw = {.beta1 = optimizer.betas(0),
                    .beta2 = optimizer.betas(1),
                    .eps = optimizer.eps(),
                    .weight_decay = optimizer.weight_decay()},
          .disk_deadline_ms = WaitDeadlineMs(spec, kDiskWaitMs)};
}

DataLoaderOptions DataLoaderOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank) {
  DataLoaderOptions options{.batch = plan.batch,
                            .data_parallel_rank = plan.mesh.Coordinate(rank, Axis::kDp),
                            .context_rank = plan.mesh.Coordinate(rank, Axis::kCp)};
  const proto::Data& data = spec.data();
  if (data.has_ignore_label()) options.special.ignore_label = data.ignore_label();
  if (data.has_document_separator()) options.special.document_separator = data.document_separator();
  for (const StageId stage : plan.StagesOf(rank)) {
    const StageLayout& layout = plan.stages[static_cast<size_t>(stage.value)];
    options.fields |= FieldsOf(plan.table.model(), layout, plan.batch);
  }
  return options;
}

RankGroups::Deadlines GroupDeadlinesOf(const proto::JobSpec& spec) {
  constexpr int64_t kTellMs = 60'000;
  constexpr int64_t kUsualHangMs = 300'000;
  const int64_t hang_ms = int64_t{1000} * spec.resources().hang_seconds();
  return {.tell_ms = WaitDeadlineMs(spec, kTellMs),
          .end_ms = 2 * (hang_ms > 0 ? hang_ms : kUsualHangMs)};
}

Result<DataOrder> DataOrderOf(const proto::JobSpec& spec, const JobPlan& plan,
                              const TokenFile& tokens) {
  ASSIGN_OR_RETURN(const int64_t samples, CountSamples(tokens, plan.batch.seq_len));
  return DataOrder::Make({.num_samples = samples,
                          .val_fraction = spec.data().val_fraction(),
                          .validates = spec.eval().every() > 0 || spec.kind() == "evaluate",
                          .shuffle = spec.data().shuffle(),
                          .seed = static_cast<uint64_t>(spec.train().seed())});
}

std::vector<int> HostNumbersOf(const proto::Peers& peers, int num_ranks) {
  std::vector<std::string> hosts(static_cast<size_t>(num_ranks));
  for (const auto& peer : peers.peers()) {
    if (peer.rank() >= 0 && peer.rank() < num_ranks) {
      hosts[static_cast<size_t>(peer.rank())] = peer.host();
    }
  }
  std::vector<int> numbers;
  for (const std::string& host : hosts) {
    numbers.push_back(static_cast<int>(std::ranges::find(hosts, host) - hosts.begin()));
  }
  return numbers;
}

Status PostSlots(Transport& transport, const proto::JobSpec& spec, const JobPlan& plan, Rank rank) {
  const auto boundary_bytes = static_cast<int64_t>(BoundaryTensor(spec, plan).num_bytes);
  const PipelineRank place = plan.PipelineRankOf(rank);
  for (const Channel& channel : plan.channels) {
    const uint16_t number = ChannelOf(channel.kind);
    if (channel.to == place) {
      const Rank from = plan.mesh.InPipelineOf(rank, channel.from);
      RETURN_IF_ERROR(transport.PostSlots(from, number, channel.slots, boundary_bytes));
    }
    if (channel.from == place) {
      transport.SetCredits(plan.mesh.InPipelineOf(rank, channel.to), number, channel.slots);
    }
  }
  return {};
}

}  // namespace troupe
