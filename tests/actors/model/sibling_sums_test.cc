// Sums over a stage's siblings, however its shards are repeated: each rank has its own part's, and
// in order they are those of one worker that adds the members one after the other.
#include "actors/model/sibling_sums.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "actors/plan/gradient_piece.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe {
namespace {

struct Siblings {
  int num_owners = 1;
  int num_replicas = 1;
  int num_directions = 1;
  SumAlgorithm sums = SumAlgorithm::kOrdered;
  int size() const { return num_owners * num_replicas; }
  ShardPlace PlaceOf(int owner, int replica) const {
    return {.owner = owner,
            .num_owners = num_owners,
            .replica = replica,
            .num_replicas = num_replicas,
            .num_directions = num_directions};
  }
};

// The n-th sum's elements of one member.
float Value(int member, size_t sum, int64_t element) {
  const auto mixed = (static_cast<int64_t>(sum) * 5 + member * 7 + element * 3) % 11;
  return mixed % 3 == 0 ? 1e7F + static_cast<float>(mixed) : 0.37F * static_cast<float>(mixed);
}

template <typename Network>
class SiblingSumsTest : public ::testing::Test {
 protected:
  // A rank is its member's number among all.
  struct Member {
    ShardPlace place{};
    std::vector<std::unique_ptr<Group>> groups{};
    std::vector<std::vector<float>> gradients{};  // of each sum
    std::unique_ptr<SiblingSums> sums{};
    std::unique_ptr<StreamScope> scope{};
  };

  Group* Open(Member& member, uint32_t number, std::vector<Rank> ranks, const Siblings& siblings) {
    if (ranks.size() < 2) return nullptr;
    member.groups.push_back(world_->Open({.id = GroupId(number),
                                          .name = "group " + std::to_string(number),
                                          .ranks = std::move(ranks),
                                          .self = Rank(MemberOf(member.place)),
                                          .sums = siblings.sums},
                                         static_cast<uint16_t>(16 + number)));
    return member.groups.back().get();
  }

  void OpenGroups(Member& member, const Siblings& siblings) {
    std::vector<Rank> all, owners, replicas;
    for (int rank = 0; rank < siblings.size(); ++rank) all.emplace_back(rank);
    for (int owner = 0; owner < siblings.num_owners; ++owner) {
      owners.emplace_back(MemberOf(siblings.PlaceOf(owner, member.place.replica)));
    }
    for (int replica = 0; replica < siblings.num_replicas; ++replica) {
      replicas.emplace_back(MemberOf(siblings.PlaceOf(member.place.owner, replica)));
    }
    SiblingGroups groups{.in_order = siblings.sums != SumAlgorithm::kRing};
    groups.all = Open(member, 0, all, siblings);
    groups.owners = siblings.num_replicas == 1 ? groups.all : Open(member, 1, owners, siblings);
    groups.replicas = Open(member, 2, replicas, siblings);
    member.sums = std::make_unique<SiblingSums>(groups, member.place);
    member.scope = std::make_unique<StreamScope>(world_->stream(MemberOf(member.place)));
  }

  // All sums are open at once. `counts` of each: of the owners' runs; none: whole.
  void Run(const Siblings& siblings, const std::vector<std::vector<int64_t>>& counts,
           int64_t whole) {
    members_.clear();
    world_ = std::make_unique<RouterWorld<Network>>(siblings.size());
    for (int replica = 0; replica < siblings.num_replicas; ++replica) {
      for (int owner = 0; owner < siblings.num_owners; ++owner) {
        members_.push_back({.place = siblings.PlaceOf(owner, replica)});
        OpenGroups(members_.back(), siblings);
      }
    }
    size_t open = 0;
    for (Member& member : members_) {
      const int rank = MemberOf(member.place);
      for (size_t i = 0; i < counts.size(); ++i) {
        int64_t elements = counts[i].empty() ? whole : 0;
        for (const int64_t count : counts[i]) elements += count;
        auto& gradients = member.gradients.emplace_back(static_cast<size_t>(elements));
        for (int64_t e = 0; e < elements; ++e) {
          gradients[static_cast<size_t>(e)] = Value(rank, i, e);
        }
        const auto view = TensorView::Of<float>(gradients.data(), {elements});
        ++open;
        world_->stream(rank).LaunchTask(*member.scope,
                                        counts[i].empty() ? member.sums->Whole(view, {})
                                                          : member.sums->Shard(view, counts[i], {}),
                                        [&open](const WorkTime&, const Status& status) {
                                          EXPECT_TRUE(status.ok()) << status.error().message;
                                          --open;
                                        });
      }
    }
    ASSERT_TRUE(world_->Until([&open] { return open == 0; }));
    for (const Member& member : members_) Check(siblings, member, counts);
  }

  static void Check(const Siblings& siblings, const Member& member,
                    const std::vector<std::vector<int64_t>>& counts) {
    for (size_t i = 0; i < counts.size(); ++i) {
      int64_t begin = 0;
      int64_t end = std::ssize(member.gradients[i]);
      if (!counts[i].empty()) {
        for (int owner = 0; owner < member.place.owner; ++owner) {
          begin += counts[i][static_cast<size_t>(owner)];
        }
        end = begin + counts[i][static_cast<size_t>(member.place.owner)];
      }
      for (int64_t e = begin; e < end; ++e) {
        float expected = Value(0, i, e);
        for (int other = 1; other < siblings.size(); ++other) expected += Value(other, i, e);
        const float sum = member.gradients[i][static_cast<size_t>(e)];
        if (siblings.sums == SumAlgorithm::kRing) {
          ASSERT_NEAR(sum, expected, 1e-6 * std::abs(expected)) << "sum " << i << ", element " << e;
        } else {
          ASSERT_EQ(sum, expected) << "sum " << i << ", element " << e;
        }
      }
    }
  }

  std::unique_ptr<RouterWorld<Network>> world_{};
  std::deque<Member> members_{};  // after the world: their groups end first
};
using Networks = ::testing::Types<InprocWorldNetwork, SimWorldNetwork>;
TYPED_TEST_SUITE(SiblingSumsTest, Networks);

TYPED_TEST(SiblingSumsTest, EveryRankHasItsOwnPart) {
  for (const SumAlgorithm sums : {SumAlgorithm::kOrdered, SumAlgorithm::kRing}) {
    for (const Siblings& siblings : {Siblings{2, 1}, Siblings{3, 1}, Siblings{2, 2}, Siblings{2, 3},
                                     Siblings{3, 2}, Siblings{2, 2, 2}, Siblings{2, 4, 2}}) {
      Siblings of = siblings;
      of.sums = sums;
      std::vector<std::vector<int64_t>> counts;
      for (const int64_t elements : {700, 1, 2000, 64}) {
        std::vector<int64_t> runs(static_cast<size_t>(of.num_owners), elements);
        runs.back() = elements / 3;  // of one nothing
        counts.push_back(runs);
        counts.emplace_back();
      }
      this->Run(of, counts, 500);
    }
  }
}

TYPED_TEST(SiblingSumsTest, OfWholeWeightsEveryoneHasEverything) {
  for (const auto sums : {SumAlgorithm::kOrdered, SumAlgorithm::kRing, SumAlgorithm::kChain}) {
    for (const int size : {2, 3, 4}) {
      this->Run({.num_owners = 1, .num_replicas = size, .sums = sums}, {{}, {}, {}}, 3000);
    }
  }
}

}  // namespace
}  // namespace troupe
