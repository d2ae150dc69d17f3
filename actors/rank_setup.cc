#include "actors/rank_setup.h"

#include <algorithm>
#include <iterator>

#include "actors/plan/cost_model.h"
#include "actors/stage_set.h"

namespace troupe {

ScheduleOptions ScheduleOptionsOf(const proto::StartRank& start, const JobPlan& plan) {
  const proto::JobSpec& spec = start.spec();
  ScheduleOptions options{
      .steps = spec.train().stop_after() > 0 ? spec.train().stop_after() : spec.train().steps(),
      .num_microbatches = plan.batch.num_microbatches,
      .evaluate_microbatches = plan.batch.num_microbatches,
      .global_batch_size = plan.batch.global_batch_size,
      .num_parameters = plan.table.size(),
      .grad_clip = spec.optimizer().grad_clip(),
      .evaluate_every = spec.eval().every(),
      .evaluate_rounds = spec.eval().batches(),
      .checkpoint_every = spec.checkpoint().every(),
      .checkpoint_every_seconds = spec.checkpoint().every_seconds(),
      .checkpoint_at_end = !start.reference_run(),
      .seq_len = static_cast<int32_t>(plan.batch.seq_len),
      .step_flops = ModelFlops(plan.config, plan.batch.seq_len).total() *
                    static_cast<double>(plan.batch.tokens_per_step()),
      .learning_rate = [rate = plan.learning_rate](int64_t step) { return rate.At(step); }};
  if (!spec.eval().has_sample()) return options;
  // Bytes as tokens.
  std::ranges::transform(spec.eval().sample().prompt(), std::back_inserter(options.prompt),
                         [](char c) { return static_cast<unsigned char>(c); });
  options.sample_tokens = spec.eval().sample().tokens();
  options.sample_temperature = spec.eval().sample().temperature();
  options.sample_seed = spec.eval().sample().seed();
  return options;
}

ExecutorOptions ExecutorOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank) {
  return {.rank = rank,
          .place = plan.PipelineRankOf(rank),
          .pipeline = plan.mesh.GroupOf(Axis::kPp, rank),
          .train = plan.train,
          .policy = plan.policy,
          .others = plan.others,
          .evaluate = plan.evaluate,
          .sample = plan.sample,
          .boundary = BoundaryTensor(spec, plan),
          .reductions = plan.reductions};
}

StageOptions StageOptionsOf(const proto::JobSpec& spec, const JobPlan& plan, Rank rank,
                            StageId stage) {
  const proto::Optimizer& optimizer = spec.optimizer();
  return {.rank = rank,
          .stage = stage,
          .last = plan.train.IsLastStage(stage),
          .first_microbatch = plan.train.FirstMicrobatch(stage).value,
          .adamw = {.beta1 = optimizer.betas(0),
                    .beta2 = optimizer.betas(1),
                    .eps = optimizer.eps(),
                    .weight_decay = optimizer.weight_decay()}};
}

std::map<int32_t, StageReduction> ReductionsOf(
    const RankPlace& place, StageId stage, const std::function<StageModel*(StageId)>& model_of) {
  std::map<int32_t, StageReduction> started;
  for (size_t i = 0; i < place.plan.reductions.size(); ++i) {
    const GradientReduction& reduction = place.plan.reductions[i];
    const std::vector<StageId> copies =
        StagesOn(place.plan.train, reduction, place.plan.PipelineRankOf(place.rank));
    if (copies.empty() || copies.back() != stage) continue;
    const auto index = static_cast<int32_t>(i);
    StageReduction& own = started[index];
    own.weights = reduction.weights;
    own.group = place.groups.OfReduction(index);
    std::ranges::transform(copies, std::back_inserter(own.copies), model_of);
  }
  return started;
}

Result<DataOrder> DataOrderOf(const proto::JobSpec& spec, const JobPlan& plan,
                              const TokenFile& tokens) {
  ASSIGN_OR_RETURN(const int64_t samples, CountSamples(tokens, plan.batch.seq_len));
  return DataOrder::Make({.num_samples = samples,
                          .val_fraction = spec.data().val_fraction(),
                          .validates = spec.eval().every() > 0,
                          .shuffle = spec.data().shuffle(),
                          .seed = static_cast<uint64_t>(spec.train().seed())});
}

Status PostSlots(Transport& transport, const proto::JobSpec& spec, const JobPlan& plan, Rank rank) {
  const auto boundary_bytes = static_cast<int64_t>(BoundaryTensor(spec, plan).num_bytes);
  const PipelineRank place = plan.PipelineRankOf(rank);
  for (const Channel& channel : plan.channels) {
    const uint16_t number =
        channel.kind == InputKind::kActivation ? kActivationChannel : kGradientChannel;
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
