// ParameterShard: the part of one parameter whose master, moments and gradient a rank keeps, votes
// and saves. A cut of the tensor (tensor and expert parallel), and of the cut, as a dense tensor of
// its own, a run of whole leaves of the norm's tree (ZeRO; kernels/squared_norm.h). Pure.
//
//   H1. The cuts of all members, and of each cut the runs of all owners, are the tensor without gap
//       or overlap.
//   H2. A run begins on a leaf's border, so its vote is a few nodes and every sharding rebuilds the
//       same root.
//   H3. What two owners hold of a row of parameters differs by less than two leaves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "actors/plan/parameter_table.h"
#include "actors/plan/stage_partition.h"

namespace troupe {

inline constexpr int64_t kShardLeafElements = 1024;  // the norm's

// Slots that a rank posts for each other owner of what it gathers (ZeRO-3), and their bytes at
// most.
inline constexpr int kShardSlots = 2;
inline constexpr int64_t kShardBlockBytes = int64_t{256} << 10;

// Where a rank stands among those that share parameters.
struct ShardPlace {
  int cut = 0;  // tensor or expert parallel: which of num_cuts
  int num_cuts = 1;
  int owner = 0;  // ZeRO: of the cut, which of num_owners
  int num_owners = 1;
  int replica = 0;  // of the ranks that have the same shard, the first of which votes and saves it
  int num_replicas = 1;
  int num_directions =
      1;  // of the schedule: neighbouring replicas are the directions of a pipeline
  int64_t persist_elements = 0;  // smaller parameters stay whole at every owner (ParameterRow)
};

// Gradients that are added up over the ranks at once, where they are whole.
inline constexpr int64_t kBucketBytes = int64_t{4} << 20;

// What ranks with the same weights share out, and how weights that are in shards come and go
// (ZeRO).
struct ZeroSharding {
  int stage = 0;     // 1: moments (and masters with a copy); 2: gradients, too; 3: weights, too
  int prefetch = 1;  // stage 3: units that are gathered ahead of the one at work
  bool reshard_after_forward = true;  // stage 3: a unit goes after a Forward and is gathered again
  int group = 0;  // neighbours that share the shards; the next ones have the same again. 0: all
  int64_t persist_elements = 0;  // parameters below stay whole, as in stage 0
};

// Rows (axis 0) or columns (axis 1) [first, first + count) of a tensor; the whole of it is an axis
// of -1.
struct TensorCut {
  int axis = -1;
  int64_t first = 0;
  int64_t count = 0;
  bool operator==(const TensorCut&) const = default;
};
// Along the parameter's shard axis, as evenly as whole rows or columns allow.
TensorCut CutOf(const ParameterSpec& spec, const ShardPlace& place);
int64_t ElementsOf(const ParameterSpec& spec, const TensorCut& cut);

struct ParameterShard {
  int parameter = -1;  // in the table
  TensorCut cut{};
  int64_t first_element = 0;  // of the cut, row by row: on a leaf's border
  int64_t num_elements = 0;
  int64_t cut_elements = 0;
  bool is_first_copy = true;  // of those ranks that have the same: who votes and saves it

  bool is_whole() const { return cut.axis < 0 && num_elements == cut_elements; }
  int64_t first_leaf() const { return first_element / kShardLeafElements; }
  int64_t cut_leaves() const {  // of the tree that its nodes belong to
    return (cut_elements + kShardLeafElements - 1) / kShardLeafElements;
  }
};

// Parameters that are shared out together, or that stay whole together at every owner: neighbours
// in a stage's list.
struct ParameterRow {
  std::vector<int> parameters{};  // table indices, ascending
  bool persists = false;          // whole at every owner
};

// The shards of a row of parameters (table indices) at that place, one of each, in their order; of
// what it has nothing of, a shard has no elements. Together they are one run of the row.
std::vector<ParameterShard> ShardsOf(const ParameterTable& table, std::span<const int> parameters,
                                     const ShardPlace& place);
std::vector<ParameterShard> ShardsOf(const ParameterTable& table, const ParameterRow& row,
                                     const ShardPlace& place);
// Of the row, by owner; of one that persists every owner has all.
std::vector<int64_t> OwnerElements(const ParameterTable& table, const ParameterRow& row,
                                   const ShardPlace& place);

// Whether owners that share parameters out keep this one whole: it has fewer elements, counted with
// those that one product has as one matrix beside it.
bool Persists(const ParameterTable& table, int index, int64_t persist_elements);

// The rows in which what a stage holds is shared out: each unit's parameters, between those of it
// that persist, and by itself a weight of two units, so that all stages that hold it cut it alike.
// Ascending. Parameters whose gradients or weights one product has as one matrix are of one row.
// Which owner of `place` is asked for makes no difference.
std::vector<ParameterRow> ShardRowsOf(const ParameterTable& table, const StageLayout& layout,
                                      const ShardPlace& place = {});

// By table index, the elements that the place owns; 0 of what the stage does not hold.
std::vector<int64_t> OwnedByParameter(const ParameterTable& table, const StageLayout& layout,
                                      const ShardPlace& place);
// Of everything that the stage holds.
int64_t OwnedElements(const ParameterTable& table, const StageLayout& layout,
                      const ShardPlace& place);

// Which element of the parameter the shard's element `element` is.
int64_t GlobalElement(const ParameterSpec& spec, const ParameterShard& shard, int64_t element);

}  // namespace troupe
