#include "runtime/collective/neighbour_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

namespace troupe {
namespace {

constexpr int64_t kBlock = 10;

GroupOperation AllReduceOf(int64_t count) {
  GroupOperation operation{.kind = GroupOperationKind::kAllReduce};
  operation.input.count = operation.output.count = count;
  return operation;
}

GroupSpec SpecOf(int size, SumAlgorithm sums, std::vector<int> hosts = {}) {
  GroupSpec spec{.sums = sums, .hosts = std::move(hosts)};
  for (int rank = 0; rank < size; ++rank) spec.ranks.emplace_back(rank);
  return spec;
}

std::vector<NeighbourPlan> PlansOf(const GroupOperation& operation, const GroupSpec& spec) {
  std::vector<NeighbourPlan> plans;
  for (int i = 0; i < std::ssize(spec.ranks); ++i) {
    plans.push_back(PlanNeighbours(operation, spec, i, kBlock));
  }
  return plans;
}

std::vector<GroupSpec> Specs() {
  std::vector<GroupSpec> specs;
  for (const int size : {2, 3, 5}) {
    specs.push_back(SpecOf(size, SumAlgorithm::kRing));
    specs.push_back(SpecOf(size, SumAlgorithm::kChain));
  }
  specs.push_back(SpecOf(4, SumAlgorithm::kRing, {0, 0, 1, 1}));
  specs.push_back(SpecOf(6, SumAlgorithm::kRing, {7, 3, 7, 3, 7, 3}));
  specs.push_back(SpecOf(6, SumAlgorithm::kRing, {1, 1, 2, 2, 3, 3}));
  specs.push_back(SpecOf(3, SumAlgorithm::kRing, {1, 2, 3}));
  specs.push_back(SpecOf(5, SumAlgorithm::kRing, {1, 1, 1, 2, 2}));
  return specs;
}

// What one sends another expects, in that order.
TEST(NeighbourPlan, MembersAgree) {
  for (const GroupSpec& spec : Specs()) {
    for (const int64_t count : {0, 1, 63, 64, 65, 1000}) {
      const auto plans = PlansOf(AllReduceOf(count), spec);
      for (const auto list : {&NeighbourPlan::sums, &NeighbourPlan::copies}) {
        std::map<std::pair<int, int>, std::vector<ElementRun>> sent, expected;
        for (int i = 0; i < std::ssize(plans); ++i) {
          for (const NeighbourBlock& block : plans[static_cast<size_t>(i)].*list) {
            if (block.to >= 0) sent[{i, block.to}].push_back(block.run);
            if (block.from >= 0) expected[{block.from, i}].push_back(block.run);
          }
        }
        EXPECT_EQ(sent, expected);
      }
    }
  }
}

// Of every element the sum becomes whole at one member, begins at one, and comes to all.
TEST(NeighbourPlan, EverySumIsWholeOnceAndComesToAll) {
  constexpr int64_t kCount = 1000;
  for (const GroupSpec& spec : Specs()) {
    int64_t begun = 0;
    int64_t whole = 0;
    for (const NeighbourPlan& plan : PlansOf(AllReduceOf(kCount), spec)) {
      int64_t passed = 0;
      int64_t has = 0;
      for (const NeighbourBlock& block : plan.sums) {
        passed += block.run.count;
        if (block.from < 0) begun += block.run.count;
        if (block.to < 0) has += block.run.count;
      }
      whole += has;
      for (const NeighbourBlock& block : plan.copies) {
        if (block.from >= 0) has += block.run.count;
      }
      EXPECT_EQ(passed, kCount);
      EXPECT_EQ(has, kCount);
    }
    EXPECT_EQ(begun, kCount);
    EXPECT_EQ(whole, kCount);
  }
}

// Of H hosts a part crosses between two H - 1 times for its sum, and as often for its copies; a
// ring that knows of no hosts crosses more often. What each member sends is the same.
TEST(NeighbourPlan, ARingCrossesBetweenHostsAsSeldomAsItCan) {
  constexpr int64_t kCount = 6 * 640;
  const auto crossing = [&](const GroupSpec& spec, const std::vector<int>& hosts) {
    int64_t crossed = 0;
    const auto plans = PlansOf(AllReduceOf(kCount), spec);
    for (size_t i = 0; i < plans.size(); ++i) {
      int64_t sent = 0;
      for (const auto list : {&NeighbourPlan::sums, &NeighbourPlan::copies}) {
        for (const NeighbourBlock& block : plans[i].*list) {
          if (block.to < 0) continue;
          sent += block.run.count;
          if (hosts[static_cast<size_t>(block.to)] != hosts[i]) crossed += block.run.count;
        }
      }
      EXPECT_EQ(sent, 2 * kCount / 6 * 5);
    }
    return crossed;
  };
  for (const std::vector<int>& hosts :
       {std::vector{0, 0, 0, 1, 1, 1}, std::vector{2, 1, 2, 1, 2, 1}}) {
    EXPECT_EQ(crossing(SpecOf(6, SumAlgorithm::kRing, hosts), hosts), 2 * kCount);
    EXPECT_GE(crossing(SpecOf(6, SumAlgorithm::kRing), hosts), 2 * kCount / 6 * 10);
  }
  const std::vector<int> three = {0, 0, 1, 1, 2, 2};
  EXPECT_EQ(crossing(SpecOf(6, SumAlgorithm::kRing, three), three), 4 * kCount);
}

// By hand: two hosts of two. Part 1 is of (0, 1): from (1, 0) to (1, 1), over to (0, 0), to it.
TEST(NeighbourPlan, APartGoesThroughTheOtherHostFirst) {
  const GroupSpec spec = SpecOf(4, SumAlgorithm::kRing, {0, 0, 1, 1});
  const auto plans = PlansOf(AllReduceOf(4 * 64), spec);
  const auto of_part_one = [&](size_t member) {
    const auto& sums = plans[member].sums;
    const auto found = std::ranges::find_if(
        sums, [](const NeighbourBlock& block) { return block.run.first == 64; });
    return std::pair(found->from, found->to);
  };
  EXPECT_EQ(of_part_one(2), std::pair(-1, 3));
  EXPECT_EQ(of_part_one(3), std::pair(2, 0));
  EXPECT_EQ(of_part_one(0), std::pair(3, 1));
  EXPECT_EQ(of_part_one(1), std::pair(0, -1));
}

// N1: with two slots of each peer a ring of unequal parts comes to its end, whoever acts first.
TEST(NeighbourPlan, TwoSlotsAreEnoughForARing) {
  const std::vector<ElementRun> parts = {{0, 500}, {500, 0}, {500, 3}, {503, 95}};
  GroupOperation operation{.kind = GroupOperationKind::kReduceScatter, .parts = parts};
  operation.input.count = 598;
  for (const std::vector<int>& hosts : {std::vector<int>{}, std::vector{0, 0, 1, 1}}) {
    const auto plans = PlansOf(operation, SpecOf(4, SumAlgorithm::kRing, hosts));
    for (size_t first : {0, 1, 2, 3}) {
      std::map<std::pair<size_t, size_t>, int> held;           // from, at
      std::map<std::pair<size_t, size_t>, size_t> num_came{};  // from, to
      std::vector<size_t> at(4);                               // in the lists
      bool moves = true;
      while (moves) {
        moves = false;
        for (size_t turn = 0; turn < 4; ++turn) {
          const size_t self = (first + turn) % 4;
          const auto& sums = plans[self].sums;
          while (at[self] < sums.size()) {
            const NeighbourBlock& block = sums[at[self]];
            if (block.to < 0) {
              ++at[self];
              continue;
            }
            const auto to = static_cast<size_t>(block.to);
            if (held[{self, to}] == 2) break;
            if (block.from >= 0) {
              int& own = held[{static_cast<size_t>(block.from), self}];
              if (own == 0) break;
              --own;
            }
            size_t number = num_came[{self, to}]++;
            for (const NeighbourBlock& there : plans[to].sums) {
              if (there.from != static_cast<int>(self) || number-- > 0) continue;
              if (there.to >= 0) ++held[{self, to}];
              break;
            }
            ++at[self];
            moves = true;
          }
        }
      }
      for (size_t i = 0; i < 4; ++i) EXPECT_EQ(at[i], plans[i].sums.size()) << first;
    }
  }
}

TEST(NeighbourPlan, AllElseGoesDirectly) {
  EXPECT_TRUE(GoesByNeighbours(GroupOperationKind::kReduceScatter, SumAlgorithm::kRing));
  EXPECT_FALSE(GoesByNeighbours(GroupOperationKind::kReduceScatter, SumAlgorithm::kChain));
  EXPECT_FALSE(GoesByNeighbours(GroupOperationKind::kReduce, SumAlgorithm::kRing));
  EXPECT_FALSE(GoesByNeighbours(GroupOperationKind::kAllReduce, SumAlgorithm::kOrdered));
}

}  // namespace
}  // namespace troupe
