// The ranks of a job as an n-dimensional array over the axes dp, cp, tp, pp, ep. Ranks along tp are
// neighbours (they talk most), then cp, dp, pp: where hosts are filled rank by rank, the ranks
// along tp lie on one host first, then those along cp. ep runs inside dp x cp x tp and multiplies
// nothing. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "actors/schedule/action.h"
#include "proto/job.pb.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"

namespace troupe {

enum class Axis : uint8_t { kDp, kCp, kTp, kPp, kEp };
inline constexpr int kNumAxes = 5;
std::string_view AxisName(Axis axis);  // "dp"

class Mesh {
 public:
  Mesh() { extents_.fill(1); }

  // Adds an error to `errors` for every extent below 1 or too large, by field name, or else for too
  // many ranks: then the mesh has one. Which axes may exceed 1 is the plan's matter.
  static Mesh Read(const proto::Parallelism& parallelism, std::vector<Error>& errors);
  // The first error, for those who were given an effective job.
  static Result<Mesh> FromSpec(const proto::Parallelism& parallelism);

  int extent(Axis axis) const { return extents_[static_cast<size_t>(axis)]; }
  int num_ranks() const;

  // Index of the rank along the axis.
  int Coordinate(Rank rank, Axis axis) const;
  // The ranks that differ from `rank` in this axis only, in the axis' order, `rank` among them.
  std::vector<Rank> GroupOf(Axis axis, Rank rank) const;

  // Where the rank stands in its pipeline: a schedule's list, stages and channels are of that.
  PipelineRank PipelineRankOf(Rank rank) const { return PipelineRank(Coordinate(rank, Axis::kPp)); }
  // The ranks with the same weights: those at one place of the pipeline, data-parallel ranks
  // outside and context-parallel ones inside; and the place of `rank` among them.
  int num_replicas() const { return extent(Axis::kDp) * extent(Axis::kCp); }
  std::vector<Rank> ReplicasOf(Rank rank) const;
  int ReplicaOf(Rank rank) const;

  // Who stands at `place` in the pipeline of `rank`: in its place along every other axis.
  Rank InPipelineOf(Rank rank, PipelineRank place) const;
  std::string Name() const;  // "pp4", "dp2 x pp4"; "1 worker"

 private:
  int Stride(Axis axis) const;

  std::array<int, kNumAxes> extents_{};
};

}  // namespace troupe
