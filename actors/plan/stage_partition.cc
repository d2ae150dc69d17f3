#include "actors/plan/stage_partition.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <limits>

#include "actors/plan/cost_model.h"

namespace troupe {
namespace {

struct Best {
  double dearest = std::numeric_limits<double>::infinity();
  double squares = 0;  // of the stages' costs: breaks ties towards equal stages
  int first_layer = 0;
  bool operator<(const Best& other) const {
    return dearest != other.dearest ? dearest < other.dearest : squares < other.squares;
  }
};

// Per kind of layer, how many of the first n layers are of it: n from 0 to all.
std::vector<std::vector<int>> LayersBefore(const ModelSpec& model) {
  std::vector<std::vector<int>> before(model.layer_kinds.size(), {0});
  for (const int of_layer : model.layers) {
    for (size_t kind = 0; kind < before.size(); ++kind) {
      before[kind].push_back(before[kind].back() + (static_cast<int>(kind) == of_layer ? 1 : 0));
    }
  }
  return before;
}

}  // namespace

Status CheckStageCount(int64_t num_layers, int num_stages, int chunks_per_rank) {
  if (num_stages >= 1 && num_layers >= num_stages) return {};
  const std::string needs =
      chunks_per_rank == 1
          ? std::string("as many layers")
          : fmt::format("{} layers for {} model chunks a rank", num_stages, chunks_per_rank);
  const int chunks = std::max(1, chunks_per_rank);
  return MakeError(ErrorCode::kInfeasible,
                   "parallelism.pp = {} needs {}, model.num_hidden_layers = {}: every stage holds "
                   "at least one; use pp 1 to {}",
                   num_stages / chunks, needs, num_layers, num_layers / chunks);
}

Status CheckStageLayers(const std::vector<int>& stage_layers, int num_stages, int64_t num_layers) {
  const auto refuse = [&](std::string why) {
    return MakeError(ErrorCode::kInvalidSpec, "parallelism.stage_layers = [{}]: {}",
                     fmt::join(stage_layers, ", "), std::move(why));
  };
  if (num_stages > 0 && static_cast<int>(stage_layers.size()) != num_stages) {
    return refuse(fmt::format("the schedule has {} stages: give a number for each", num_stages));
  }
  int64_t sum = 0;
  for (const int layers : stage_layers) {
    if (layers < 1) return refuse("every stage holds at least one layer");
    sum += layers;
  }
  if (num_layers == 0 || sum == num_layers) return {};
  return refuse(fmt::format("they add up to {}, model.num_hidden_layers = {}", sum, num_layers));
}

Result<std::vector<StageLayout>> PartitionStages(const ModelSpec& model,
                                                 const StageWeights& weights, int chunks_per_rank) {
  const int num_stages = static_cast<int>(weights.layers.size());
  const int layers = model.num_layers();
  RETURN_IF_ERROR(CheckStageCount(layers, num_stages, chunks_per_rank));
  const std::vector<std::vector<int>> before = LayersBefore(model);
  const auto cost = [&](int stage, int first, int end) {
    double sum = 0;
    for (size_t kind = 0; kind < before.size(); ++kind) {
      sum += (before[kind][static_cast<size_t>(end)] - before[kind][static_cast<size_t>(first)]) *
             weights.layers[static_cast<size_t>(stage)][kind];
    }
    return sum + (stage == 0 ? weights.embedding : 0) +
           (stage == num_stages - 1 ? weights.head : 0);
  };
  // best[s][n]: the first s stages hold the first n layers.
  std::vector<std::vector<Best>> best(static_cast<size_t>(num_stages) + 1,
                                      std::vector<Best>(static_cast<size_t>(layers) + 1));
  best[0][0] = {.dearest = 0};
  for (int s = 1; s <= num_stages; ++s) {
    for (int n = s; n <= layers - (num_stages - s); ++n) {
      for (int first = s - 1; first < n; ++first) {
        const Best& earlier = best[s - 1][first];
        const double c = cost(s - 1, first, n);
        const Best candidate{std::max(earlier.dearest, c), earlier.squares + c * c, first};
        if (candidate < best[s][n]) best[s][n] = candidate;
      }
    }
  }
  std::vector<StageLayout> stages(static_cast<size_t>(num_stages));
  for (int s = num_stages, end = layers; s > 0; --s) {
    const int first = best[s][end].first_layer;
    stages[static_cast<size_t>(s) - 1] = {s - 1, num_stages, first, end - first};
    end = first;
  }
  return stages;
}

Result<std::vector<StageLayout>> PartitionStages(const ModelSpec& model, int num_stages,
                                                 int64_t seq_len, int chunks_per_rank) {
  std::vector<double> layer;
  for (const LayerSpec& kind : model.layer_kinds) {
    layer.push_back(UnitFlops(kind, seq_len).total());
  }
  return PartitionStages(model,
                         {.layers = std::vector<std::vector<double>>(
                              static_cast<size_t>(std::max(0, num_stages)), layer),
                          .embedding = UnitFlops(model.embedding, seq_len).total(),
                          .head = UnitFlops(model.head, seq_len).total()},
                         chunks_per_rank);
}

Result<std::vector<StageLayout>> StagesOfLayers(const ModelSpec& model,
                                                const std::vector<int>& stage_layers,
                                                int num_stages) {
  RETURN_IF_ERROR(CheckStageLayers(stage_layers, num_stages, model.num_layers()));
  std::vector<StageLayout> stages;
  int first = 0;
  for (int stage = 0; stage < num_stages; ++stage) {
    stages.push_back({stage, num_stages, first, stage_layers[static_cast<size_t>(stage)]});
    first += stages.back().num_layers;
  }
  return stages;
}

std::vector<int> UnitsOf(const ModelSpec& model, const StageLayout& layout) {
  std::vector<int> units;
  if (layout.has_embedding()) units.push_back(model.embedding_unit());
  for (int i = 0; i < layout.num_layers; ++i) {
    units.push_back(model.layer_unit(layout.first_layer + i));
  }
  if (layout.has_head()) units.push_back(model.head_unit());
  return units;
}

std::vector<int> ParametersOf(const ParameterTable& table, const StageLayout& layout) {
  std::vector<int> indices;
  for (const int unit : UnitsOf(table.model(), layout)) {
    std::ranges::copy(table.OfUnit(unit), std::back_inserter(indices));
  }
  std::ranges::sort(indices);
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());  // tied, and one stage
  return indices;
}

std::vector<int> OwnedParametersOf(const ParameterTable& table, const StageLayout& layout) {
  const std::vector<int> units = UnitsOf(table.model(), layout);
  std::vector<int> indices = ParametersOf(table, layout);
  std::erase_if(
      indices, [&](int index) { return !std::ranges::binary_search(units, table.OwnerOf(index)); });
  return indices;
}

std::string Describe(const StageLayout& layout) {
  const int last = layout.first_layer + layout.num_layers - 1;
  return fmt::format("{}{}{}",
                     layout.num_layers == 1 ? fmt::format("layer {}", last)
                                            : fmt::format("layers {}-{}", layout.first_layer, last),
                     layout.has_embedding() ? " + embedding" : "",
                     layout.has_head() ? " + head" : "");
}

}  // namespace troupe
