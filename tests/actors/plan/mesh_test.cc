#include "actors/plan/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

Mesh MeshOf(int dp, int cp, int tp, int pp) {
  proto::Parallelism spec;
  spec.set_dp(dp);
  spec.set_cp(cp);
  spec.set_tp(tp);
  spec.set_pp(pp);
  auto mesh = Mesh::FromSpec(spec);
  EXPECT_TRUE(mesh.ok());
  return *mesh;
}

TEST(Mesh, EveryRankHasItsOwnCoordinates) {
  const Mesh mesh = MeshOf(2, 3, 2, 4);
  ASSERT_EQ(mesh.num_ranks(), 48);
  for (int r = 0; r < mesh.num_ranks(); ++r) {
    const Rank rank(r);
    EXPECT_EQ(mesh.Coordinate(rank, Axis::kTp) + 2 * mesh.Coordinate(rank, Axis::kCp) +
                  6 * mesh.Coordinate(rank, Axis::kDp) + 12 * mesh.Coordinate(rank, Axis::kPp),
              r);
  }
}

TEST(Mesh, GroupsDifferInOneAxisOnly) {
  const Mesh mesh = MeshOf(2, 1, 2, 3);
  EXPECT_THAT(mesh.GroupOf(Axis::kPp, Rank(5)), ::testing::ElementsAre(Rank(1), Rank(5), Rank(9)));
  EXPECT_THAT(mesh.GroupOf(Axis::kTp, Rank(5)), ::testing::ElementsAre(Rank(4), Rank(5)));
  EXPECT_THAT(mesh.GroupOf(Axis::kDp, Rank(5)), ::testing::ElementsAre(Rank(5), Rank(7)));
  EXPECT_THAT(mesh.GroupOf(Axis::kCp, Rank(5)), ::testing::ElementsAre(Rank(5)));
}

TEST(Mesh, APipelineIsTheRanksInOnePlaceOfEveryOtherAxis) {
  const Mesh mesh = MeshOf(2, 1, 2, 3);
  EXPECT_EQ(mesh.PipelineRankOf(Rank(5)), PipelineRank(1));
  for (int r = 0; r < mesh.num_ranks(); ++r) {
    const std::vector<Rank> pipeline = mesh.GroupOf(Axis::kPp, Rank(r));
    for (PipelineRank place{}; place.value < 3; place = place.Next()) {
      const Rank other = mesh.InPipelineOf(Rank(r), place);
      EXPECT_EQ(other, pipeline[static_cast<size_t>(place.value)]);
      EXPECT_EQ(mesh.PipelineRankOf(other), place);
    }
  }
}

// Hosts are filled rank by rank.
TEST(Mesh, AHostHoldsTheRanksAlongTpFirstThenThoseAlongCp) {
  const Mesh mesh = MeshOf(2, 2, 2, 2);
  constexpr int kSlots = 4;
  for (int r = 0; r < mesh.num_ranks(); ++r) {
    const auto on_this_host = [r](Rank other) { return other.value / kSlots == r / kSlots; };
    EXPECT_THAT(mesh.GroupOf(Axis::kTp, Rank(r)), ::testing::Each(::testing::Truly(on_this_host)));
    EXPECT_THAT(mesh.GroupOf(Axis::kCp, Rank(r)), ::testing::Each(::testing::Truly(on_this_host)));
    const std::vector<Rank> copies = mesh.GroupOf(Axis::kDp, Rank(r));
    EXPECT_NE(copies[0].value / kSlots, copies[1].value / kSlots);
  }
}

// One pipeline: a rank is its place.
TEST(Mesh, AlongPpAloneEveryRankIsItsPlace) {
  const Mesh mesh = MeshOf(1, 1, 1, 5);
  for (int r = 0; r < 5; ++r) {
    EXPECT_EQ(mesh.PipelineRankOf(Rank(r)), PipelineRank(r));
    EXPECT_EQ(mesh.InPipelineOf(Rank(3), PipelineRank(r)), Rank(r));
  }
}

// Data-parallel ranks outside, those that share sequences inside: the order of their sums.
TEST(Mesh, ReplicasAreTheRanksAtOnePlaceOfThePipelines) {
  const Mesh mesh = MeshOf(2, 3, 1, 2);
  EXPECT_EQ(mesh.num_replicas(), 6);
  EXPECT_THAT(mesh.ReplicasOf(Rank(8)),
              ::testing::ElementsAre(Rank(6), Rank(7), Rank(8), Rank(9), Rank(10), Rank(11)));
  for (int r = 0; r < mesh.num_ranks(); ++r) {
    const Rank rank(r);
    const std::vector<Rank> replicas = mesh.ReplicasOf(rank);
    EXPECT_EQ(replicas.at(static_cast<size_t>(mesh.ReplicaOf(rank))), rank);
    for (const Rank replica : replicas) {
      EXPECT_EQ(mesh.PipelineRankOf(replica), mesh.PipelineRankOf(rank));
    }
  }
}

TEST(Mesh, NamesTheAxesAboveOne) {
  EXPECT_EQ(MeshOf(1, 1, 1, 4).Name(), "pp4");
  EXPECT_EQ(MeshOf(2, 1, 1, 4).Name(), "dp2 x pp4");
  EXPECT_EQ(Mesh().Name(), "1 worker");
}

TEST(Mesh, RefusesAnEmptyAxisByName) {
  proto::Parallelism spec;
  spec.set_pp(0);
  const auto mesh = Mesh::FromSpec(spec);
  ASSERT_FALSE(mesh.ok());
  EXPECT_EQ(mesh.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(mesh.error().message, ::testing::HasSubstr("parallelism.pp = 0"));
}

TEST(Mesh, EveryBadExtentIsNamed) {
  proto::Parallelism spec;
  spec.set_dp(0);
  spec.set_tp(2);
  spec.set_pp(1 << 20);
  std::vector<Error> errors;
  EXPECT_EQ(Mesh::Read(spec, errors).extent(Axis::kTp), 2);
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_TRUE(errors[0].message.starts_with("parallelism.dp = 0: use 1 to ")) << errors[0].message;
  EXPECT_TRUE(errors[1].message.starts_with("parallelism.pp = 1048576: ")) << errors[1].message;
}

TEST(Mesh, RefusesMoreRanksThanCanBe) {
  proto::Parallelism spec;
  spec.set_dp(1 << 16);
  spec.set_cp(1 << 16);
  std::vector<Error> errors;
  EXPECT_EQ(Mesh::Read(spec, errors).num_ranks(), 1);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_THAT(errors[0].message,
              ::testing::HasSubstr("= 65536 x 65536 x 1 x 1: use at most 1048576 ranks in all"));
}

}  // namespace
}  // namespace troupe
