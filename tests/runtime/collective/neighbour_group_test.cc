// Sums along rings and chains, over every transport, with members that share memory and without.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/collective/group_conformance.h"
#include "tests/runtime/collective/neighbour_world.h"
#include "tests/runtime/collective/shared_world.h"

namespace troupe {
namespace {

template <typename World>
using Ring = NeighbourWorld<World, SumAlgorithm::kRing>;
template <typename World>
using Chain = NeighbourWorld<World, SumAlgorithm::kChain>;
using Inproc = RouterWorld<InprocWorldNetwork>;

INSTANTIATE_TYPED_TEST_SUITE_P(RingInproc, GroupConformance, Ring<Inproc>);
INSTANTIATE_TYPED_TEST_SUITE_P(RingSim, GroupConformance, Ring<RouterWorld<SimWorldNetwork>>);
INSTANTIATE_TYPED_TEST_SUITE_P(RingUcx, GroupConformance, Ring<RouterWorld<UcxWorldNetwork>>);
INSTANTIATE_TYPED_TEST_SUITE_P(RingShm, GroupConformance, Ring<SharedWorld<InprocWorldNetwork>>);
INSTANTIATE_TYPED_TEST_SUITE_P(ChainInproc, GroupConformance, Chain<Inproc>);
INSTANTIATE_TYPED_TEST_SUITE_P(ChainSim, GroupConformance, Chain<RouterWorld<SimWorldNetwork>>);
INSTANTIATE_TYPED_TEST_SUITE_P(ChainUcx, GroupConformance, Chain<RouterWorld<UcxWorldNetwork>>);
INSTANTIATE_TYPED_TEST_SUITE_P(ChainShm, GroupConformance, Chain<SharedWorld<InprocWorldNetwork>>);

// A world of one group of all ranks, and what its members sent.
template <typename World>
struct NeighbourGroupTest {
  explicit NeighbourGroupTest(int size, std::vector<int> hosts = {}) : world(size) {
    GroupSpec spec{.id = GroupId(5), .name = "g", .hosts = std::move(hosts)};
    for (int rank = 0; rank < size; ++rank) spec.ranks.emplace_back(rank);
    for (int rank = 0; rank < size; ++rank) {
      spec.self = Rank(rank);
      groups.push_back(world.Open(spec, 16));
      scopes.push_back(std::make_unique<StreamScope>(world.stream(rank)));
    }
  }
  ~NeighbourGroupTest() {
    scopes.clear();
    groups.clear();
  }
  void RunAll(const std::function<Task<Status>(Group&)>& run) {
    std::vector<Status> ended;
    for (size_t i = 0; i < groups.size(); ++i) {
      world.stream(static_cast<int>(i))
          .LaunchTask(*scopes[i], run(*groups[i]), [&ended](const WorkTime&, Status status) {
            ended.push_back(std::move(status));
          });
    }
    ASSERT_TRUE(world.Until([&] { return ended.size() == groups.size(); }));
    for (const Status& status : ended) EXPECT_TRUE(status.ok()) << status.error().message;
  }
  int64_t Sent(int member, GroupOperationKind kind) const {
    return groups[static_cast<size_t>(member)]->traffic(kind).sent_bytes;
  }
  int64_t NumOperations(int member, GroupOperationKind kind) const {
    return groups[static_cast<size_t>(member)]->traffic(kind).num_operations;
  }

  World world;
  std::vector<std::unique_ptr<Group>> groups{};
  std::vector<std::unique_ptr<StreamScope>> scopes{};
};

TEST(NeighbourGroup, ARingSendsWhatItsPartsSay) {
  for (const int size : {2, 3, 5}) {
    for (const int64_t count : {3, 100, 10'000}) {
      NeighbourGroupTest<Ring<Inproc>> at(size);
      auto data = RandomOnes(DType::kFloat32, count, size);
      std::vector<ElementRun> parts;
      for (int i = 0; i < size; ++i) parts.push_back({i * (count / size), i % 2 * (count / size)});
      at.RunAll([&](Group& g) -> Task<Status> {
        const auto self = static_cast<size_t>(g.index());
        Tensor own(DType::kFloat32, parts[self].count);
        CO_RETURN_IF_ERROR(co_await g.ReduceScatter(data[self].elements(), own.elements(), parts));
        co_return co_await g.AllReduce(data[self].elements());
      });
      const AllReduceParts whole = DivideRing(count, size);
      int64_t scattered = 0;
      for (const ElementRun& part : parts) scattered += part.count;
      for (int i = 0; i < size; ++i) {
        const int64_t own = parts[static_cast<size_t>(i)].count;
        EXPECT_EQ(at.Sent(i, GroupOperationKind::kAllReduce), 4 * whole.ElementsSentInRingBy(i));
        EXPECT_EQ(at.Sent(i, GroupOperationKind::kReduceScatter), 4 * (scattered - own));
        EXPECT_EQ(at.NumOperations(i, GroupOperationKind::kAllReduce), 1);
        EXPECT_EQ(at.NumOperations(i, GroupOperationKind::kReduceScatter), 1);
      }
    }
  }
}

// Member (b, x) owns a part whose sum comes by (b + 1, x + 1), …, (b + 1, x), (b, x + 1), …
TEST(NeighbourGroup, ARingGoesThroughOneHostAfterTheOther) {
  constexpr int64_t kCount = 6 * 6400;
  NeighbourGroupTest<Ring<Inproc>> at(6, {0, 1, 0, 1, 0, 1});
  auto data = RandomOnes(DType::kFloat32, kCount, 6);
  const int orders[6][6] = {{3, 5, 1, 2, 4, 0}, {2, 4, 0, 3, 5, 1}, {5, 1, 3, 4, 0, 2},
                            {4, 0, 2, 5, 1, 3}, {1, 3, 5, 0, 2, 4}, {0, 2, 4, 1, 3, 5}};
  std::string sums;
  for (int owner = 0; owner < 6; ++owner) {
    std::vector<Tensor> in_order;
    for (const int member : orders[owner]) in_order.push_back(data[static_cast<size_t>(member)]);
    sums += SerialSum(DType::kFloat32, in_order, 0, {owner * 6400, 6400});
  }
  std::vector<Tensor> scattered(6, Tensor(DType::kFloat32, kCount / 6));
  at.RunAll([&](Group& g) -> Task<Status> {
    const auto self = static_cast<size_t>(g.index());
    CO_RETURN_IF_ERROR(co_await g.ReduceScatter(data[self].elements(), scattered[self].elements()));
    co_return co_await g.AllReduce(data[self].elements());
  });
  std::string parts;
  for (const Tensor& part : scattered) parts += part.Bytes();
  EXPECT_EQ(parts, sums);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(data[static_cast<size_t>(i)].Bytes(), sums);
    EXPECT_EQ(at.Sent(i, GroupOperationKind::kAllReduce), 2 * 4 * kCount / 6 * 5);
  }
}

TEST(NeighbourGroup, AChainSendsAReduceAndABroadcast) {
  constexpr int kSize = 4;
  constexpr int64_t kCount = 3001;
  NeighbourGroupTest<Chain<Inproc>> at(kSize);
  auto data = RandomOnes(DType::kBFloat16, kCount, kSize);
  at.RunAll([&](Group& g) { return g.AllReduce(data[static_cast<size_t>(g.index())].elements()); });
  for (int i = 0; i < kSize; ++i) {
    EXPECT_EQ(at.Sent(i, GroupOperationKind::kReduce), i < kSize - 1 ? 2 * kCount : 0);
    EXPECT_EQ(at.Sent(i, GroupOperationKind::kBroadcast), i > 0 ? 2 * kCount : 0);
    EXPECT_EQ(at.Sent(i, GroupOperationKind::kAllReduce), 0);
    EXPECT_EQ(at.NumOperations(i, GroupOperationKind::kReduce), 1);
    EXPECT_EQ(at.NumOperations(i, GroupOperationKind::kBroadcast), 1);
  }
}

}  // namespace
}  // namespace troupe
