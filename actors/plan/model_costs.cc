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

void Add(StageCost& sum, const StageCost& part) {
  sum.forward_ns += part.forward_ns;
  sum.backward_input_ns += part.backward_input_ns;
  sum.backward_weight_ns += part.backward_weight_ns;
  sum.backward_ns += part.WholeBackwardNs();
}

StageCost OfLayer(const ModelCosts& costs, int kind) {
  const auto index = static_cast<size_t>(kind);
  return index < costs.layers.size() ? costs.layers[index] : StageCost{};
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

// pick(ns, ns) → ns: which of two times.
template <typename Pick>
StageCost Picked(const StageCost& a, const StageCost& b, Pick pick) {
  return {pick(a.forward_ns, b.forward_ns), pick(a.backward_input_ns, b.backward_input_ns),
          pick(a.backward_weight_ns, b.backward_weight_ns),
          pick(a.WholeBackwardNs(), b.WholeBackwardNs())};
}
template <typename Pick>
ModelCosts Picked(const ModelCosts& a, const ModelCosts& b, Pick pick) {
  ModelCosts picked{.embedding = Picked(a.embedding, b.embedding, pick),
                    .head = Picked(a.head, b.head, pick),
                    .hop_ns = pick(a.hop_ns, b.hop_ns)};
  for (size_t kind = 0; kind < std::min(a.layers.size(), b.layers.size()); ++kind) {
    picked.layers.push_back(Picked(a.layers[kind], b.layers[kind], pick));
  }
  return picked;
}

int64_t Lesser(int64_t a, int64_t b) { return std::min(a, b); }
int64_t Greater(int64_t a, int64_t b) { return std::max(a, b); }

}  // namespace

StageCost Least(const StageCost& a, const StageCost& b) { return Picked(a, b, Lesser); }

ModelCosts CostsByFlops(const ModelSpec& model, const BatchArithmetic& batch) {
  const auto cost = [&batch](const LayerSpec& unit) {
    return InNanoseconds(UnitFlops(unit, batch.seq_len),
                         static_cast<double>(batch.tokens_per_microbatch()));
  };
  ModelCosts costs{.embedding = cost(model.embedding), .head = cost(model.head)};
  for (const LayerSpec& kind : model.layer_kinds) costs.layers.push_back(cost(kind));
  return costs;
}

proto::ModelCosts ToProto(const ModelCosts& costs) {
  proto::ModelCosts message;
  for (const StageCost& layer : costs.layers) Write(layer, message.add_layers());
  Write(costs.embedding, message.mutable_embedding());
  Write(costs.head, message.mutable_head());
  message.set_hop_ns(costs.hop_ns);
  return message;
}

ModelCosts FromProto(const proto::ModelCosts& costs) {
  ModelCosts read{
      .embedding = Read(costs.embedding()), .head = Read(costs.head()), .hop_ns = costs.hop_ns()};
  for (const proto::ModuleTimes& layer : costs.layers()) read.layers.push_back(Read(layer));
  return read;
}

std::vector<ModelCosts> LeastOfAlike(std::span<const ModelCosts> costs,
                                     std::span<const std::string> hardware) {
  std::map<std::string, ModelCosts> least;
  for (size_t rank = 0; rank < costs.size(); ++rank) {
    const auto [found, first] = least.try_emplace(hardware[rank], costs[rank]);
    if (!first) found->second = Picked(found->second, costs[rank], Lesser);
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
  ModelCosts all{
      .embedding = scaled(costs.embedding), .head = scaled(costs.head), .hop_ns = costs.hop_ns};
  for (const StageCost& layer : costs.layers) all.layers.push_back(scaled(layer));
  return all;
}

std::vector<ModelCosts> CostsAlongPipeline(const Mesh& mesh, std::span<const ModelCosts> of_ranks) {
  std::vector<ModelCosts> along;
  if (of_ranks.size() <= 1) return {of_ranks.begin(), of_ranks.end()};
  std::map<PipelineRank, ModelCosts> most;
  for (Rank rank{}; static_cast<size_t>(rank.value) < of_ranks.size(); rank = rank.Next()) {
    const ModelCosts& own = of_ranks[static_cast<size_t>(rank.value)];
    const auto [found, first] = most.try_emplace(mesh.PipelineRankOf(rank), own);
    if (!first) found->second = Picked(found->second, own, Greater);
  }
  for (auto& [place, costs] : most) along.push_back(std::move(costs));
  return along;
}

const ModelCosts& CostsOfRank(std::span<const ModelCosts> costs, PipelineRank rank) {
  return costs.size() == 1 ? costs.front() : costs[static_cast<size_t>(rank.value)];
}

CostModel StageCostsOf(const Schedule& schedule, const ModelSpec& spec,
                       std::span<const StageLayout> stages, std::span<const ModelCosts> costs) {
  CostModel model;
  for (int stage = 0; stage < schedule.num_stages; ++stage) {
    const ModelCosts& rank = CostsOfRank(costs, schedule.RankOf(StageId(stage)));
    const StageLayout& layout = stages[static_cast<size_t>(stage % schedule.StagesPerDirection())];
    StageCost& sum = model.stages.emplace_back(StageCost{.backward_ns = 0});
    for (int i = 0; i < layout.num_layers; ++i) {
      Add(sum, OfLayer(rank, spec.layers[static_cast<size_t>(layout.first_layer + i)]));
    }
    if (layout.has_embedding()) Add(sum, rank.embedding);
    if (layout.has_head()) Add(sum, rank.head);
    model.link_latency_ns = std::max(model.link_latency_ns, rank.hop_ns);
  }
  return model;
}

StageWeights WeightsOf(const Schedule& schedule, const ModelSpec& model,
                       std::span<const ModelCosts> costs) {
  StageWeights weights;
  for (int stage = 0; stage < schedule.StagesPerDirection(); ++stage) {
    const ModelCosts& rank = CostsOfRank(costs, schedule.RankOf(StageId(stage)));
    std::vector<double>& layers = weights.layers.emplace_back();
    for (size_t kind = 0; kind < model.layer_kinds.size(); ++kind) {
      layers.push_back(static_cast<double>(OfLayer(rank, static_cast<int>(kind)).WorkNs()));
    }
    if (stage == 0) weights.embedding = static_cast<double>(rank.embedding.WorkNs());
    weights.head = static_cast<double>(rank.head.WorkNs());  // the last stage's in the end
  }
  return weights;
}

}  // namespace troupe
