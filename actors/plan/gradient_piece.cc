#include "actors/plan/gradient_piece.h"

#include <algorithm>
#include <map>
#include <set>

namespace troupe {
namespace {

GradientMoment MomentOf(const LayerSpec& spec, int parameter, bool halves) {
  const auto in_product = [parameter](const LayerProduct& product) {
    return product.first_parameter <= parameter &&
           parameter < product.first_parameter + product.num_parameters;
  };
  const auto product = std::ranges::find_if(spec.products, in_product);
  if (product != spec.products.end() && product->chunked) return GradientMoment::kForward;
  const bool vector = spec.parameters[static_cast<size_t>(parameter)].one_dimensional;
  return halves && vector ? GradientMoment::kInput : GradientMoment::kWeight;
}

}  // namespace

std::vector<GradientPiece> GradientPiecesOf(const ParameterTable& table, const StageLayout& layout,
                                            bool halves) {
  std::map<int, size_t> row_of;
  const std::vector<std::vector<int>> rows = ShardRowsOf(table, layout);
  for (size_t row = 0; row < rows.size(); ++row) {
    for (const int index : rows[row]) row_of[index] = row;
  }
  std::vector<GradientPiece> pieces;
  std::set<int> used;
  for (const int unit : UnitsOf(table.model(), layout)) {
    const LayerSpec& spec = table.model().unit(unit);
    const std::span<const int> parameters = table.OfUnit(unit);
    std::map<std::pair<GradientMoment, size_t>, GradientPiece> of_unit;  // by moment and row
    for (size_t i = 0; i < parameters.size(); ++i) {
      const GradientMoment moment = MomentOf(spec, static_cast<int>(i), halves);
      GradientPiece& piece = of_unit[{moment, row_of.at(parameters[i])}];
      piece.unit = unit;
      piece.moment = moment;
      piece.second_use = !used.insert(parameters[i]).second;
      piece.parameters.push_back(parameters[i]);
      piece.num_elements += table[parameters[i]].num_elements();
    }
    for (auto& [key, piece] : of_unit) {
      std::ranges::sort(piece.parameters);
      pieces.push_back(std::move(piece));
    }
  }
  return pieces;
}

std::vector<int64_t> OwnerCounts(const ParameterTable& table, const StageLayout& layout,
                                 const GradientPiece& piece, const ShardPlace& place) {
  std::vector<int64_t> counts(static_cast<size_t>(place.num_owners));
  for (const std::vector<int>& row : ShardRowsOf(table, layout)) {
    if (!std::ranges::binary_search(row, piece.parameters.front())) continue;
    for (int owner = 0; owner < place.num_owners; ++owner) {
      ShardPlace at = place;
      at.owner = owner;
      for (const ParameterShard& shard : ShardsOf(table, row, at)) {
        if (!std::ranges::binary_search(piece.parameters, shard.parameter)) continue;
        counts[static_cast<size_t>(owner)] += shard.num_elements;
      }
    }
  }
  return counts;
}

}  // namespace troupe
