#include "actors/plan/parameter_shard.h"

#include <algorithm>
#include <numeric>

#include "runtime/base/check.h"

namespace troupe {
namespace {

int64_t CeilOf(int64_t dividend, int64_t divisor) { return (dividend + divisor - 1) / divisor; }

}  // namespace

TensorCut CutOf(const ParameterSpec& spec, const ShardPlace& place) {
  CHECK(place.cut >= 0 && place.cut < place.num_cuts, "cut {} of {}", place.cut, place.num_cuts);
  if (place.num_cuts == 1 || spec.shard_axis < 0) return {};
  const int64_t extent = spec.shard_axis == 0 ? spec.rows : spec.columns;
  const int64_t first = extent * place.cut / place.num_cuts;
  return {.axis = spec.shard_axis,
          .first = first,
          .count = extent * (place.cut + 1) / place.num_cuts - first};
}

int64_t ElementsOf(const ParameterSpec& spec, const TensorCut& cut) {
  if (cut.axis < 0) return spec.num_elements();
  return cut.count * (cut.axis == 0 ? spec.columns : spec.rows);
}

// The leaves of all parameters stand in a row; the row's elements are shared out evenly, and a leaf
// belongs to the owner of its first element.
std::vector<ParameterShard> ShardsOf(const ParameterTable& table, std::span<const int> parameters,
                                     const ShardPlace& place) {
  CHECK(place.owner >= 0 && place.owner < place.num_owners, "owner {} of {}", place.owner,
        place.num_owners);
  int64_t total = 0;
  for (const int index : parameters) {
    total += ElementsOf(table[index], CutOf(table[index], place));
  }
  const int64_t begin = CeilOf(total * place.owner, place.num_owners);
  const int64_t end = CeilOf(total * (place.owner + 1), place.num_owners);
  std::vector<ParameterShard> shards;
  int64_t first = 0;  // of the parameter in the row
  for (const int index : parameters) {
    ParameterShard shard{.parameter = index, .cut = CutOf(table[index], place)};
    shard.cut_elements = ElementsOf(table[index], shard.cut);
    const auto border = [&](int64_t position) {
      const int64_t leaves = CeilOf(std::max<int64_t>(position - first, 0), kShardLeafElements);
      return std::min(leaves * kShardLeafElements, shard.cut_elements);
    };
    shard.first_element = border(begin);
    shard.num_elements = border(end) - shard.first_element;
    first += shard.cut_elements;
    shards.push_back(shard);
  }
  return shards;
}

std::vector<ParameterShard> ShardsOf(const ParameterTable& table, const ParameterRow& row,
                                     const ShardPlace& place) {
  ShardPlace at = place;
  if (row.persists) at.owner = 0, at.num_owners = 1;
  std::vector<ParameterShard> shards = ShardsOf(table, row.parameters, at);
  for (ParameterShard& shard : shards) {
    shard.is_first_copy = place.replica == 0 && (!row.persists || place.owner == 0);
  }
  return shards;
}

std::vector<int64_t> OwnerElements(const ParameterTable& table, const ParameterRow& row,
                                   const ShardPlace& place) {
  std::vector<int64_t> elements;
  ShardPlace of = place;
  for (of.owner = 0; of.owner < place.num_owners; ++of.owner) {
    int64_t& count = elements.emplace_back(0);
    for (const ParameterShard& shard : ShardsOf(table, row, of)) count += shard.num_elements;
  }
  return elements;
}

namespace {

// Of the parameter, with those beside which a product has it in one matrix.
int64_t ElementsTogether(const ParameterTable& table, int index) {
  const int unit = table.OwnerOf(index);
  const std::span<const int> parameters = table.OfUnit(unit);
  int64_t most = table[index].num_elements();
  for (const LayerProduct& product : table.model().unit(unit).products) {
    const auto members = parameters.subspan(static_cast<size_t>(product.first_parameter),
                                            static_cast<size_t>(product.num_parameters));
    if (std::ranges::find(members, index) == members.end()) continue;
    int64_t together = 0;
    for (const int member : members) together += table[member].num_elements();
    most = std::max(most, together);
  }
  return most;
}

}  // namespace

bool Persists(const ParameterTable& table, int index, int64_t persist_elements) {
  return ElementsTogether(table, index) < persist_elements;
}

std::vector<ParameterRow> ShardRowsOf(const ParameterTable& table, const StageLayout& layout,
                                      const ShardPlace& place) {
  const int shared = table.tied() ? table.embedding_index() : -1;
  std::vector<ParameterRow> rows;
  int last_unit = -1;
  for (const int index : ParametersOf(table, layout)) {
    const int unit = index == shared ? -1 : table.OwnerOf(index);
    const bool persists = place.num_owners > 1 && Persists(table, index, place.persist_elements);
    if (rows.empty() || unit < 0 || unit != last_unit || persists != rows.back().persists) {
      rows.emplace_back().persists = persists;
    }
    rows.back().parameters.push_back(index);
    last_unit = unit;
  }
  return rows;
}

std::vector<int64_t> OwnedByParameter(const ParameterTable& table, const StageLayout& layout,
                                      const ShardPlace& place) {
  std::vector<int64_t> owned(static_cast<size_t>(table.size()));
  for (const ParameterRow& row : ShardRowsOf(table, layout, place)) {
    for (const ParameterShard& shard : ShardsOf(table, row, place)) {
      owned[static_cast<size_t>(shard.parameter)] = shard.num_elements;
    }
  }
  return owned;
}

int64_t OwnedElements(const ParameterTable& table, const StageLayout& layout,
                      const ShardPlace& place) {
  const std::vector<int64_t> owned = OwnedByParameter(table, layout, place);
  return std::accumulate(owned.begin(), owned.end(), int64_t{0});
}

int64_t GlobalElement(const ParameterSpec& spec, const ParameterShard& shard, int64_t element) {
  const int64_t of_cut = shard.first_element + element;
  switch (shard.cut.axis) {
    case 0:
      return shard.cut.first * spec.columns + of_cut;
    case 1:
      return of_cut / shard.cut.count * spec.columns + shard.cut.first + of_cut % shard.cut.count;
    default:
      return of_cut;
  }
}

}  // namespace troupe
