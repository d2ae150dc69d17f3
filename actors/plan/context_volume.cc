#include "actors/plan/context_volume.h"

#include <algorithm>
#include <cmath>

#include "actors/plan/context_balance.h"
#include "actors/plan/job_plan.h"
#include "actors/plan/unit_tensors.h"
#include "runtime/base/slot_stride.h"

namespace troupe {
namespace {

// Times that a layer of the rank is passed in a step.
struct LayerPasses {
  int64_t forward = 0;
  int64_t recompute = 0;
  int64_t backward = 0;

  int64_t all() const { return forward + recompute + backward; }
};

LayerPasses PassesOf(const JobPlan& plan, Rank rank) {
  LayerPasses passes;
  for (const Action& action : plan.train.ActionsOf(plan.PipelineRankOf(rank))) {
    const bool forward = action.kind == ActionKind::kForward;
    const bool backward =
        action.kind == ActionKind::kBackward || action.kind == ActionKind::kBackwardInput;
    if (!forward && !backward) continue;
    const int64_t layers = plan.stages[static_cast<size_t>(action.stage.value)].num_layers;
    (forward ? passes.forward : passes.backward) += layers;
  }
  if (plan.recompute != Recompute::kNone) passes.recompute = passes.backward;
  return passes;
}

// Of Ulysses: to heads and back for every sequence by itself, and where each document begins.
std::vector<CommunicationVolume> HeadRows(const JobPlan& plan, const LayerPasses& passes) {
  const ContextParallel& context = plan.batch.context;
  const ModelConfig& c = plan.config;
  const LayerAttention own =
      HeadsOfRank({c.num_attention_heads, c.num_key_value_heads, c.head_dim}, context);
  const int64_t queries = own.num_heads * own.head_dim;
  const int64_t all_heads = queries + 2 * own.num_kv_heads * own.head_dim;
  const int64_t forward = passes.forward + passes.recompute;
  const int64_t sequences = plan.batch.micro_batch_size;
  const int64_t numbers = (context.num_ranks - 1) * plan.batch.tokens_per_microbatch();
  std::vector<CommunicationVolume> rows;
  AddVolume(rows, {.axis = Axis::kCp,
                   .operation = "all-to-all",
                   .count = sequences * (2 * forward + 3 * passes.backward),
                   .bytes = numbers * plan.widths.compute_bytes *
                            ((all_heads + queries) * forward +
                             (all_heads + 2 * queries) * passes.backward)});
  if (!plan.batch.packs_documents) return rows;
  AddVolume(rows, {.axis = Axis::kCp,
                   .operation = "all-gather",
                   .count = sequences * passes.all(),
                   .bytes = numbers * static_cast<int64_t>(sizeof(int32_t)) * passes.all()});
  return rows;
}

}  // namespace

int64_t KvBlockBytes(const JobPlan& plan) {
  return 2 * plan.batch.tokens_per_microbatch() * plan.config.key_value_size() *
         plan.widths.compute_bytes;
}

int64_t KvGradientBlockBytes(const JobPlan& plan) {
  return 2 * plan.batch.tokens_per_microbatch() * plan.config.key_value_size() *
         plan.widths.master_bytes;
}

std::vector<CommunicationVolume> ContextVolumeOf(const JobPlan& plan, Rank rank) {
  const ContextParallel& context = plan.batch.context;
  if (!context.shared()) return {};
  const LayerPasses passes = PassesOf(plan, rank);
  const int64_t others = context.num_ranks - 1;
  const int64_t block = KvBlockBytes(plan);
  const int64_t gradient = KvGradientBlockBytes(plan);
  std::vector<CommunicationVolume> rows;
  const auto add = [&rows](std::string_view operation, int64_t count, int64_t bytes_each,
                           int64_t bytes_per_hop = 0) {
    AddVolume(rows, {Axis::kCp, operation, count, count * bytes_each, bytes_per_hop});
  };
  switch (context.method) {
    case ContextMethod::kRing:
      add(kKvHop, passes.all() * others, block, block);
      add(kKvGradientHop, passes.backward * context.num_ranks, gradient, gradient);
      return rows;
    case ContextMethod::kAllGather:
      add("all-gather", passes.all(), others * block);
      add("reduce-scatter", passes.backward, others * gradient);
      return rows;
    case ContextMethod::kUlysses:
      return HeadRows(plan, passes);
  }
  return rows;
}

int64_t ContextSlotBytes(const JobPlan& plan) {
  const ContextParallel& context = plan.batch.context;
  if (!context.shared()) return 0;
  if (context.method != ContextMethod::kRing) {  // received and sent
    const int64_t others = context.num_ranks - 1;
    return 2 * kContextLanes * others * kReductionSlots *
           SlotStrideBytes(plan.ReductionSlotBytes());
  }
  return kContextLanes * kKvSlots * SlotStrideBytes(KvBlockBytes(plan)) +
         kKvSlots * SlotStrideBytes(KvGradientBlockBytes(plan));
}

AttentionPairs AttentionPairsOf(const JobPlan& plan, Rank rank) {
  const ContextParallel& context = plan.batch.context;
  const int index = plan.mesh.Coordinate(rank, Axis::kCp);
  const std::vector<int64_t> of_pass =
      PairsOfRank(context, index, plan.batch.seq_len);  // a layer's
  const auto times = [&](int64_t passes) {
    std::vector<int64_t> pairs = of_pass;
    for (int64_t& of_hop : pairs) of_hop *= passes * plan.batch.micro_batch_size;
    return pairs;
  };
  const LayerPasses passes = PassesOf(plan, rank);
  AttentionPairs pairs{.forward = times(passes.forward), .backward = times(passes.backward)};
  if (passes.recompute > 0) pairs.recompute = times(passes.recompute);
  return pairs;
}

HidingChunk HidingChunkOf(const JobPlan& plan, double flops_per_second, double bytes_per_second) {
  const auto keys = static_cast<double>(plan.config.key_value_size());
  const auto queries = static_cast<double>(plan.config.query_size());
  const auto of_keys = static_cast<double>(plan.widths.compute_bytes);
  const auto of_gradients = static_cast<double>(plan.widths.master_bytes);
  const double visible = plan.batch.context.layout == SequenceLayout::kContiguous ? 1.0 : 0.5;
  const auto chunk = [&](double operations, double bytes) {
    const double positions =
        2 * keys * bytes * flops_per_second / (operations * queries * visible * bytes_per_second);
    constexpr double kMost = 0x1p62;
    return static_cast<int64_t>(std::ceil(std::min(positions, kMost)));
  };
  return {.forward = chunk(4, of_keys), .backward = chunk(10, of_keys + of_gradients)};
}

}  // namespace troupe
