#include "runtime/collective/operation_plan.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

namespace troupe {
namespace {

constexpr GroupOperationKind kKinds[] = {
    GroupOperationKind::kAllReduce, GroupOperationKind::kReduceScatter,
    GroupOperationKind::kAllGather, GroupOperationKind::kBroadcast,
    GroupOperationKind::kReduce,    GroupOperationKind::kShift,
    GroupOperationKind::kBarrier};

GroupOperation OperationOf(GroupOperationKind kind, int64_t count, int size) {
  GroupOperation operation{.kind = kind, .peer = size / 2};
  operation.input.count = kind == GroupOperationKind::kReduceScatter ? count * size : count;
  operation.output.count = kind == GroupOperationKind::kAllGather ? count * size : count;
  return operation;
}

// What one member sends the other expects, and every part of a sum has one owner or is everybody's.
TEST(OperationPlan, MembersAgree) {
  for (const int size : {1, 2, 3, 5, 8}) {
    for (const int64_t count : {0, 1, 63, 64, 65, 5000, 100'003}) {
      for (const auto kind : kKinds) {
        std::vector<OperationPlan> plans;
        for (int i = 0; i < size; ++i) {
          plans.push_back(PlanOperation(OperationOf(kind, count, size), i, size, 4));
        }
        for (size_t from = 0; from < plans.size(); ++from) {
          for (size_t to = 0; to < plans.size(); ++to) {
            if (from == to) continue;
            EXPECT_EQ(plans[from].sum_to[to], plans[to].summed);
            EXPECT_EQ(plans[from].copy_to[to].count, plans[to].copy_from[from].count);
          }
        }
      }
    }
  }
}

TEST(OperationPlan, PartsOfAnAllReduceCoverItOnceAndBeginApart) {
  for (const int64_t count : {5000, 8192, 100'003}) {
    int64_t next = 0;
    for (int i = 0; i < 4; ++i) {
      const OperationPlan plan =
          PlanOperation(OperationOf(GroupOperationKind::kAllReduce, count, 4), i, 4, 4);
      ASSERT_TRUE(plan.copies_sum);
      EXPECT_EQ(plan.summed.first, next);
      EXPECT_EQ(plan.summed.first * 4 % 64, 0);
      next += plan.summed.count;
    }
    EXPECT_EQ(next, count);
  }
}

// What the job's plan counts is what goes out.
TEST(OperationPlan, AnAllReduceSendsWhatItsPartsSay) {
  for (const int size : {1, 2, 3, 5, 8}) {
    for (const int64_t count : {0, 1, 4096, 4097, 5000, 100'003}) {
      const AllReduceParts parts = DivideAllReduce(count, 4, size);
      for (int self = 0; self < size; ++self) {
        const OperationPlan plan =
            PlanOperation(OperationOf(GroupOperationKind::kAllReduce, count, size), self, size, 4);
        int64_t sent = 0;
        for (int to = 0; to < size; ++to) {
          if (to == self) continue;
          sent += plan.sum_to[static_cast<size_t>(to)].count;
          sent += plan.copy_to[static_cast<size_t>(to)].count;
        }
        EXPECT_EQ(sent, parts.ElementsSentBy(self))
            << count << " elements, " << self << " of " << size;
      }
    }
  }
}

TEST(OperationPlan, ASmallAllReduceIsOneExchange) {
  const OperationPlan plan =
      PlanOperation(OperationOf(GroupOperationKind::kAllReduce, 100, 3), 1, 3, 4);
  EXPECT_EQ(plan.summed, (ElementRun{0, 100}));
  EXPECT_EQ(plan.sum_to[0], (ElementRun{0, 100}));
  EXPECT_EQ(plan.copy_to[0], ElementRun{});
}

TEST(OperationPlan, TheOwnPartIsCopiedUnlessItIsThere) {
  int data[6] = {1, 2, 0, 0, 0, 0};
  GroupOperation operation{
      .kind = GroupOperationKind::kAllGather, .input = {0, data, 2}, .output = {0, data, 6}};
  CopyOwnPart(operation, PlanOperation(operation, 2, 3, 4), 2, 4);
  EXPECT_EQ(data[4], 1);
  EXPECT_EQ(data[5], 2);
  CopyOwnPart(operation, PlanOperation(operation, 0, 3, 4), 0, 4);
  EXPECT_EQ(data[0], 1);
}

}  // namespace
}  // namespace troupe
