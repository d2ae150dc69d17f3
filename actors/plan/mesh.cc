#include "actors/plan/mesh.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

// From the axis whose neighbours are neighbouring ranks to the one whose are farthest apart.
constexpr std::array kInnerToOuter = {Axis::kTp, Axis::kCp, Axis::kDp, Axis::kPp};
constexpr int kExtentMax = 1 << 16;
constexpr int64_t kMeshRanksMax = 1 << 20;

}  // namespace

std::string_view AxisName(Axis axis) {
  static constexpr std::array<std::string_view, kNumAxes> kNames = {"dp", "cp", "tp", "pp", "ep"};
  return kNames[static_cast<size_t>(axis)];
}

Mesh Mesh::Read(const proto::Parallelism& p, std::vector<Error>& errors) {
  Mesh mesh;
  const std::array<int, kNumAxes> given = {p.has_dp() ? p.dp() : 1, p.has_cp() ? p.cp() : 1,
                                           p.has_tp() ? p.tp() : 1, p.has_pp() ? p.pp() : 1,
                                           p.has_ep() ? p.ep() : 1};
  for (int i = 0; i < kNumAxes; ++i) {
    if (given[i] < 1 || given[i] > kExtentMax) {
      errors.push_back(MakeError(ErrorCode::kInvalidSpec, "parallelism.{} = {}: use 1 to {}",
                                 AxisName(static_cast<Axis>(i)), given[i], kExtentMax));
      continue;
    }
    mesh.extents_[i] = given[i];
  }
  int64_t ranks = 1;
  for (const Axis axis : kInnerToOuter) {
    ranks *= mesh.extent(axis);
    if (ranks <= kMeshRanksMax) continue;
    const Axis largest =
        *std::ranges::max_element(kInnerToOuter, {}, [&mesh](Axis of) { return mesh.extent(of); });
    errors.push_back(MakeError(ErrorCode::kInvalidSpec,
                               "parallelism.{} = {}: dp x cp x tp x pp = {} x {} x {} x {}: use at "
                               "most {} ranks in all",
                               AxisName(largest), mesh.extent(largest), mesh.extent(Axis::kDp),
                               mesh.extent(Axis::kCp), mesh.extent(Axis::kTp),
                               mesh.extent(Axis::kPp), kMeshRanksMax));
    return {};
  }
  return mesh;
}

Result<Mesh> Mesh::FromSpec(const proto::Parallelism& p) {
  std::vector<Error> errors;
  const Mesh mesh = Read(p, errors);
  if (!errors.empty()) return std::move(errors.front());
  return mesh;
}

int Mesh::num_ranks() const {
  int product = 1;
  for (const Axis axis : kInnerToOuter) product *= extent(axis);
  return product;
}

int Mesh::Stride(Axis axis) const {
  int stride = 1;
  for (const Axis inner : kInnerToOuter) {
    if (inner == axis) break;
    stride *= extent(inner);
  }
  return stride;
}

int Mesh::Coordinate(Rank rank, Axis axis) const {
  if (axis == Axis::kEp) return rank.value % extent(axis);
  return rank.value / Stride(axis) % extent(axis);
}

std::vector<Rank> Mesh::GroupOf(Axis axis, Rank rank) const {
  const int stride = axis == Axis::kEp ? 1 : Stride(axis);
  const int first = rank.value - Coordinate(rank, axis) * stride;
  std::vector<Rank> group;
  for (int i = 0; i < extent(axis); ++i) group.emplace_back(first + i * stride);
  return group;
}

int Mesh::ReplicaOf(Rank rank) const {
  return Coordinate(rank, Axis::kDp) * extent(Axis::kCp) + Coordinate(rank, Axis::kCp);
}

std::vector<Rank> Mesh::ReplicasOf(Rank rank) const {
  std::vector<Rank> replicas;
  for (const Rank of_batch : GroupOf(Axis::kDp, rank)) {
    for (const Rank of_sequence : GroupOf(Axis::kCp, of_batch)) replicas.push_back(of_sequence);
  }
  return replicas;
}

Rank Mesh::InPipelineOf(Rank rank, PipelineRank place) const {
  const int stride = Stride(Axis::kPp);
  return Rank(rank.value + (place.value - PipelineRankOf(rank).value) * stride);
}

std::string Mesh::Name() const {
  std::string name;
  for (int i = 0; i < kNumAxes; ++i) {
    if (extents_[i] == 1) continue;
    if (!name.empty()) name += " x ";
    name += fmt::format("{}{}", AxisName(static_cast<Axis>(i)), extents_[i]);
  }
  return name.empty() ? "1 worker" : name;
}

}  // namespace troupe
