#include "actors/plan/model_costs.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "actors/plan/cost_model.h"

namespace troupe {
namespace {

// A thousand operations a nanosecond: enough digits, no overflow.
StageCost InNanoseconds(const TokenFlops& flops, double tokens) {
  const auto ns = [tokens](double per_token) {
    return static_cast<int64_t>(std::llround(per_token * tokens * 1e-3));
  };
  return {ns(flops.forward), ns(flops.backward_input), ns(flops.backward_weight)};
}

void Add(StageCost& sum, const StageCost& part, int times = 1) {
  sum.forward_ns += times * part.forward_ns;
  sum.backward_input_ns += times * part.backward_input_ns;
  sum.backward_weight_ns += times * part.backward_weight_ns;
  sum.backward_ns += times * part.WholeBackwardNs();
}

void Write(const StageCost& cost, proto::ModuleTimes* times) {
  times->set_forward_ns(cost.forward_ns);
  times->set_backward_input_ns(cost.backward_input_ns);
  times->set_backward_weight_ns(cost.backward_weight_ns);
  times->set_backward_ns(cost.WholeBackwardNs());
}

StageCost Read(const proto::ModuleTimes& times) {
  return {times.forward_ns(), times.backward_input_ns(), times.backward_weight_ns(),
          times.backward_ns()};
}

ModelCosts LeastOf(const ModelCosts& a, const ModelCosts& b) {
  return {Least(a.layer, b.layer), Least(a.embedding, b.embedding), Least(a.head, b.head),
          std::min(a.hop_ns, b.hop_ns)};
}

}  // namespace

StageCost Least(const StageCost& a, const StageCost& b) {
  return {std::min(a.forward_ns, b.forward_ns), std::min(a.backward_input_ns, b.backward_input_ns),
          std::min(a.backward_weight_ns, b.backward_weight_ns),
          std::min(a.WholeBackwardNs(), b.WholeBackwardNs())};
}

ModelCosts CostsByFlops(const ModelConfig& config, const BatchArithmetic& batch) {
  const auto tokens = static_cast<double>(batch.tokens_per_microbatch());
  return {.layer = InNanoseconds(LayerFlops(config, batch.seq_len), tokens),
          .embedding = InNanoseconds(EmbeddingFlops(config), tokens),
          .head = InNanoseconds(HeadFlops(config), tokens)};
}

proto::ModelCosts ToProto(const ModelCosts& costs) {
  proto::ModelCosts message;
  Write(costs.layer, message.mutable_layer());
  Write(costs.embedding, message.mutable_embedding());
  Write(costs.head, message.mutable_head());
  message.set_hop_ns(costs.hop_ns);
  return message;
}

ModelCosts FromProto(const proto::ModelCosts& costs) {
  return {.layer = Read(costs.layer()),
          .embedding = Read(costs.embedding()),
          .head = Read(costs.head()),
          .hop_ns = costs.hop_ns()};
}

std::vector<ModelCosts> LeastOfAlike(std::span<const ModelCosts> costs,
                                     std::span<const std::string> hardware) {
  std::map<std::string, ModelCosts> least;
  for (size_t rank = 0; rank < costs.size(); ++rank) {
    const auto [found, first] = least.try_emplace(hardware[rank], costs[rank]);
    if (!first) found->second = LeastOf(found->second, costs[rank]);
  }
  std::vector<ModelCosts> alike;
  for (const std::string& of : hardware) alike.push_back(least.at(of));
  return alike;
}

ModelCosts Scaled(const ModelCosts& costs, double factor) {
  const auto scaled = [factor](const StageCost& cost) {
    const auto times = [factor](int64_t ns) {
      return static_cast<int64_t>(std::llround(factor * static_cast<double>(ns)));
    };
    return StageCost{times(cost.forward_ns), times(cost.backward_input_ns),
                     times(cost.backward_weight_ns), times(cost.WholeBackwardNs())};
  };
  return {scaled(costs.layer), scaled(costs.embedding), scaled(costs.head), costs.hop_ns};
}

const ModelCosts& CostsOfRank(std::span<const ModelCosts> costs, Rank rank) {
  return costs.size() == 1 ? costs.front() : costs[static_cast<size_t>(rank.value)];
}

CostModel StageCostsOf(const Schedule& schedule, std::span<const StageLayout> stages,
                       std::span<const ModelCosts> costs) {
  CostModel model;
  for (int stage = 0; stage < schedule.num_stages; ++stage) {
    const ModelCosts& rank = CostsOfRank(costs, schedule.RankOf(StageId(stage)));
    const StageLayout& layout = stages[static_cast<size_t>(stage % schedule.StagesPerDirection())];
    StageCost& sum = model.stages.emplace_back(StageCost{.backward_ns = 0});
    Add(sum, rank.layer, layout.num_layers);
    if (layout.has_embedding()) Add(sum, rank.embedding);
    if (layout.has_head()) Add(sum, rank.head);
    model.link_latency_ns = std::max(model.link_latency_ns, rank.hop_ns);
  }
  return model;
}

StageWeights WeightsOf(const Schedule& schedule, std::span<const ModelCosts> costs) {
  StageWeights weights;
  for (int stage = 0; stage < schedule.StagesPerDirection(); ++stage) {
    const ModelCosts& rank = CostsOfRank(costs, schedule.RankOf(StageId(stage)));
    weights.layer.push_back(static_cast<double>(rank.layer.WorkNs()));
    if (stage == 0) weights.embedding = static_cast<double>(rank.embedding.WorkNs());
    weights.head = static_cast<double>(rank.head.WorkNs());  // the last stage's in the end
  }
  return weights;
}

}  // namespace troupe
