// The pieces in which the gradients of one microbatch are reduced, where they are reduced every
// microbatch (BatchArithmetic::grad_reduce): of each unit and row of shards, the parameters whose
// gradients are complete at the same moment. What of a unit is complete at once lies in a bucket
// while it is computed and reduced, and goes then: only the sum of the step is kept, of a shard
// where parameters are in shards. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "actors/plan/parameter_shard.h"
#include "actors/plan/parameter_table.h"
#include "actors/plan/stage_partition.h"
#include "runtime/base/all_reduce_parts.h"

namespace troupe {

// The pass of a unit after which a gradient is complete.
enum class GradientMoment : uint8_t {
  kForward,  // a chunked product's
  kInput,    // one-dimensional parameters', in the first half of a backward
  kWeight,   // the others'. In a schedule of whole backwards, those of kInput too
};

struct GradientPiece {
  int unit = 0;  // as ModelSpec numbers them
  GradientMoment moment = GradientMoment::kWeight;
  // The head's use of a weight whose first use is on this stage too: each use has a sum of its own.
  bool second_use = false;
  // Table indices, ascending, of one row of shards (ShardRowsOf): in a bucket they lie one behind
  // the other, so that what one owner has of them is one run.
  std::vector<int> parameters{};
  int64_t num_elements = 0;
  bool persists = false;  // the row's
};

// Of a stage, units ascending, and of each unit the moments ascending.
std::vector<GradientPiece> GradientPiecesOf(const ParameterTable& table, const StageLayout& layout,
                                            bool halves, const ShardPlace& place = {});

// Buckets that a stage has at most where several ranks reduce its pieces: one is computed while the
// one before it is reduced. Who adds a piece at once has one.
inline constexpr int kGradientBuckets = 2;
// Of every bucket of the stage: the most that is complete at one moment of a unit.
int64_t BucketElements(const ParameterTable& table, const StageLayout& layout, bool halves,
                       const ShardPlace& place = {});

// Elements of each owner's run in the piece's bucket, in their order.
std::vector<int64_t> OwnerCounts(const ParameterTable& table, const StageLayout& layout,
                                 const GradientPiece& piece, const ShardPlace& place);

// The place's own among the members of its stage's sums, in the order in which they are added
// (JobPlan::MembersOf): pipelines ascending, and of each its directions.
int MemberOf(const ShardPlace& place);

// What each of those members sums of a row or piece that is shared out, where several of them have
// the same shard: by member, elements of the row. Of each owner's run every replica has an even
// share, so that they are the whole row, each element once.
std::vector<ElementRun> MemberShares(std::span<const int64_t> owner_counts,
                                     const ShardPlace& place);
// How the owner's run is divided among its replicas: elements of each one's share, in their order.
std::vector<int64_t> ReplicaCounts(int64_t owner_count, int num_replicas);

// A run of a stage's gradients (parameters as ShardRowsOf has them, then a second use) that is
// added up at once, where gradients are whole and are added up once a step: units from the last to
// the first, as their gradients become complete, until there are `bucket_elements` of them.
struct GradientRun {
  int unit = 0;  // whose gradients are the last to come
  int64_t first_element = 0;
  int64_t num_elements = 0;
};
// In the order in which they are added up. They are all of the stage's gradients.
std::vector<GradientRun> GradientRunsOf(const ParameterTable& table, const StageLayout& layout,
                                        int64_t bucket_elements);

}  // namespace troupe
