#include "actors/plan/gradient_piece.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

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

size_t RowOf(const std::vector<ParameterRow>& rows, int index) {
  const auto row = std::ranges::find_if(rows, [index](const ParameterRow& r) {
    return std::ranges::binary_search(r.parameters, index);
  });
  CHECK(row != rows.end(), "parameter {} is in no row of the stage", index);
  return static_cast<size_t>(row - rows.begin());
}

}  // namespace

std::vector<GradientPiece> GradientPiecesOf(const ParameterTable& table, const StageLayout& layout,
                                            bool halves, const ShardPlace& place) {
  const std::vector<ParameterRow> rows = ShardRowsOf(table, layout, place);
  std::vector<GradientPiece> pieces;
  for (const int unit : UnitsOf(table.model(), layout)) {
    const bool is_second = unit == table.model().head_unit() && layout.has_embedding();
    std::map<std::tuple<GradientMoment, size_t>, GradientPiece> of_unit;  // by moment and row
    const std::span<const int> parameters = table.OfUnit(unit);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const int index = parameters[i];
      const auto moment = MomentOf(table.model().unit(unit), static_cast<int>(i), halves);
      const size_t row = RowOf(rows, index);
      GradientPiece& piece = of_unit[{moment, row}];
      piece.persists = rows[row].persists;
      piece.unit = unit;
      piece.moment = moment;
      piece.second_use = is_second && table.tied() && index == table.embedding_index();
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

int64_t BucketElements(const ParameterTable& table, const StageLayout& layout, bool halves,
                       const ShardPlace& place) {
  int64_t most = 0;
  std::map<std::pair<int, GradientMoment>, int64_t> at_once;
  for (const GradientPiece& piece : GradientPiecesOf(table, layout, halves, place)) {
    int64_t& elements = at_once[{piece.unit, piece.moment}];
    elements += piece.num_elements;
    most = std::max(most, elements);
  }
  return most;
}

std::vector<int64_t> OwnerCounts(const ParameterTable& table, const StageLayout& layout,
                                 const GradientPiece& piece, const ShardPlace& place) {
  const std::vector<ParameterRow> rows = ShardRowsOf(table, layout, place);
  const ParameterRow& row = rows[RowOf(rows, piece.parameters.front())];
  CHECK(std::ranges::includes(row.parameters, piece.parameters),
        "a piece of unit {} is of several rows of the stage", piece.unit);
  std::vector<int64_t> counts;
  ShardPlace owner = place;
  for (owner.owner = 0; owner.owner < place.num_owners; ++owner.owner) {
    int64_t& count = counts.emplace_back(0);
    for (const ParameterShard& shard : ShardsOf(table, row, owner)) {
      if (std::ranges::binary_search(piece.parameters, shard.parameter)) {
        count += shard.num_elements;
      }
    }
  }
  return counts;
}

int MemberOf(const ShardPlace& place) {
  const int direction = place.replica % place.num_directions;
  const int group = place.replica / place.num_directions;
  return (group * place.num_owners + place.owner) * place.num_directions + direction;
}

std::vector<int64_t> ReplicaCounts(int64_t owner_count, int num_replicas) {
  std::vector<int64_t> counts;
  int64_t first = 0;
  for (int replica = 0; replica < num_replicas; ++replica) {
    const int64_t end = owner_count * (replica + 1) / num_replicas;
    counts.push_back(end - first);
    first = end;
  }
  return counts;
}

std::vector<ElementRun> MemberShares(std::span<const int64_t> owner_counts,
                                     const ShardPlace& place) {
  CHECK(std::ssize(owner_counts) == place.num_owners, "{} runs of {} owners", owner_counts.size(),
        place.num_owners);
  std::vector<ElementRun> shares(owner_counts.size() * static_cast<size_t>(place.num_replicas));
  int64_t first = 0;
  ShardPlace of = place;
  for (of.owner = 0; of.owner < place.num_owners; ++of.owner) {
    const int64_t run = owner_counts[static_cast<size_t>(of.owner)];
    const std::vector<int64_t> counts = ReplicaCounts(run, place.num_replicas);
    for (of.replica = 0; of.replica < place.num_replicas; ++of.replica) {
      const int64_t count = counts[static_cast<size_t>(of.replica)];
      shares[static_cast<size_t>(MemberOf(of))] = {first, count};
      first += count;
    }
  }
  return shares;
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
  for (const ParameterRow& row : ShardRowsOf(table, layout)) {
    for (const int index : row.parameters) {
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
