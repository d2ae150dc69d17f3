#include "actors/plan/gradient_piece.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "runtime/base/check.h"

namespace troupe {
namespace {

// Of the unit's parameter at `place` in its spec.
GradientMoment MomentOf(const LayerSpec& unit, int place, bool halves) {
  for (const LayerProduct& product : unit.products) {
    const bool has = place >= product.first_parameter &&
                     place < product.first_parameter + product.num_parameters;
    if (has && product.chunked) return GradientMoment::kForward;
  }
  const bool in_input = unit.parameters[static_cast<size_t>(place)].one_dimensional;
  return halves && in_input ? GradientMoment::kInput : GradientMoment::kWeight;
}

}  // namespace

std::vector<GradientPiece> GradientPiecesOf(const ParameterTable& table, const StageLayout& layout,
                                            bool halves) {
  const int shared = table.tied() ? table.embedding_index() : -1;  // a row by itself (ShardRowsOf)
  std::vector<GradientPiece> pieces;
  for (const int unit : UnitsOf(table.model(), layout)) {
    const bool is_second = unit == table.model().head_unit() && layout.has_embedding();
    std::map<std::tuple<GradientMoment, bool>, GradientPiece> of_unit;  // by moment and row
    const std::span<const int> parameters = table.OfUnit(unit);
    for (size_t place = 0; place < parameters.size(); ++place) {
      const int index = parameters[place];
      const auto moment = MomentOf(table.model().unit(unit), static_cast<int>(place), halves);
      GradientPiece& piece = of_unit[{moment, index == shared}];
      piece.unit = unit;
      piece.moment = moment;
      piece.second_use = is_second && index == shared;
      piece.parameters.push_back(index);
      piece.num_elements += table[index].num_elements();
    }
    for (auto& [key, piece] : of_unit) {
      std::ranges::sort(piece.parameters);
      pieces.push_back(std::move(piece));
    }
  }
  return pieces;
}

int64_t BucketElements(const ParameterTable& table, const StageLayout& layout, bool halves) {
  int64_t most = 0;
  for (const GradientPiece& piece : GradientPiecesOf(table, layout, halves)) {
    most = std::max(most, piece.num_elements);
  }
  return most;
}

std::vector<int64_t> OwnerCounts(const ParameterTable& table, const StageLayout& layout,
                                 const GradientPiece& piece, const ShardPlace& place) {
  const std::vector<std::vector<int>> rows = ShardRowsOf(table, layout);
  const auto row = std::ranges::find_if(rows, [&piece](const std::vector<int>& r) {
    return std::ranges::binary_search(r, piece.parameters.front());
  });
  CHECK(row != rows.end() && std::ranges::includes(*row, piece.parameters),
        "a piece of unit {} is of no row of the stage", piece.unit);
  std::vector<int64_t> counts;
  ShardPlace owner = place;
  for (owner.owner = 0; owner.owner < place.num_owners; ++owner.owner) {
    int64_t& count = counts.emplace_back(0);
    for (const ParameterShard& shard : ShardsOf(table, *row, owner)) {
      if (std::ranges::binary_search(piece.parameters, shard.parameter)) {
        count += shard.num_elements;
      }
    }
  }
  return counts;
}

std::vector<GradientRun> GradientRunsOf(const ParameterTable& table, const StageLayout& layout,
                                        int64_t bucket_elements) {
  struct Use {
    int64_t first_element = 0;
    int unit = 0;
  };
  std::vector<Use> uses;  // by place among the stage's gradients
  int64_t end = 0;
  const auto add = [&](int index, int unit) {
    uses.push_back({end, unit});
    end += table[index].num_elements();
  };
  const int head = table.model().head_unit();
  for (const std::vector<int>& row : ShardRowsOf(table, layout)) {
    for (const int index : row) {
      const bool head_alone =
          table.OwnerOf(index) == table.model().embedding_unit() && !layout.has_embedding();
      add(index, head_alone ? head : table.OwnerOf(index));
    }
  }
  if (table.tied() && layout.has_embedding() && layout.has_head()) {
    add(table.embedding_index(), head);
  }
  std::vector<GradientRun> runs;
  size_t complete = uses.size();  // from there on all are
  const std::vector<int> units = UnitsOf(table.model(), layout);
  for (size_t i = units.size(); i-- > 0;) {
    while (complete > 0 && uses[complete - 1].unit >= units[i]) --complete;
    const int64_t first = complete == uses.size() ? end : uses[complete].first_element;
    const int64_t former = runs.empty() ? end : runs.back().first_element;
    if (former - first < (i > 0 ? std::max<int64_t>(1, bucket_elements) : 1)) continue;
    runs.push_back({units[i], first, former - first});
  }
  return runs;
}

}  // namespace troupe
