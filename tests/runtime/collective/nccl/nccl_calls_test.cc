#include "runtime/collective/nccl/nccl_calls.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace troupe {
namespace {

using Kind = NcclCallKind;

constexpr int64_t kElementBytes = 4;
constexpr int kSize = 3;

std::array<float, 64> input;
std::array<float, 64> output;

std::vector<NcclCall> CallsAt(int index, GroupOperation operation) {
  operation.input.data = input.data();
  operation.output.data = output.data();
  return NcclCallsOf(operation, PlanOperation(operation, index, kSize, kElementBytes), index,
                     kElementBytes);
}

ConstElements In(int64_t count) { return {0, nullptr, count}; }
Elements Out(int64_t count) { return {0, nullptr, count}; }

TEST(NcclCallsTest, WhatNcclHasIsOneCall) {
  using Calls = std::vector<NcclCall>;
  EXPECT_EQ(CallsAt(1, {GroupOperationKind::kAllReduce, In(7), Out(7)}),
            (Calls{{Kind::kAllReduce, &input[0], &output[0], 7, 0}}));
  EXPECT_EQ(CallsAt(1, {GroupOperationKind::kReduceScatter, In(6), Out(2)}),
            (Calls{{Kind::kReduceScatter, &input[0], &output[0], 2, 0}}));
  EXPECT_EQ(CallsAt(1, {GroupOperationKind::kAllGather, In(2), Out(6)}),
            (Calls{{Kind::kAllGather, &input[0], &output[0], 2, 0}}));
  EXPECT_EQ(CallsAt(1, {GroupOperationKind::kBroadcast, In(5), Out(5), 1}),
            (Calls{{Kind::kBroadcast, &input[0], &output[0], 5, 1}}));
  EXPECT_EQ(CallsAt(0, {GroupOperationKind::kReduce, In(5), Out(5), 0}),
            (Calls{{Kind::kReduce, &input[0], &output[0], 5, 0}}));
}

TEST(NcclCallsTest, WhoIsNoRootGivesNoMemoryOfIt) {
  EXPECT_EQ(CallsAt(0, {GroupOperationKind::kBroadcast, In(5), Out(5), 1})[0].send, nullptr);
  EXPECT_EQ(CallsAt(0, {GroupOperationKind::kReduce, In(5), Out(0), 1})[0].receive, nullptr);
}

TEST(NcclCallsTest, UnequalPartsAreACallForEachMemberThatHasOne) {
  const std::vector<int64_t> counts = {3, 0, 4};
  const auto reduced = CallsAt(2, {.kind = GroupOperationKind::kReduceScatter,
                                   .input = In(7),
                                   .output = Out(4),
                                   .send_counts = counts});
  EXPECT_EQ(reduced, (std::vector<NcclCall>{{Kind::kReduce, &input[0], nullptr, 3, 0},
                                            {Kind::kReduce, &input[3], &output[0], 4, 2}}));
  const auto gathered = CallsAt(2, {.kind = GroupOperationKind::kAllGather,
                                    .input = In(4),
                                    .output = Out(7),
                                    .receive_counts = counts});
  EXPECT_EQ(gathered, (std::vector<NcclCall>{{Kind::kBroadcast, nullptr, &output[0], 3, 0},
                                             {Kind::kBroadcast, &input[0], &output[3], 4, 2}}));
}

TEST(NcclCallsTest, CopiesBetweenPairsAreSendsAndReceives) {
  const std::vector<int64_t> sends = {1, 2, 0};
  const std::vector<int64_t> receives = {5, 2, 3};
  const auto exchanged = CallsAt(1, {.kind = GroupOperationKind::kAllToAll,
                                     .input = In(3),
                                     .output = Out(10),
                                     .send_counts = sends,
                                     .receive_counts = receives});
  EXPECT_EQ(exchanged, (std::vector<NcclCall>{{Kind::kSend, &input[0], nullptr, 1, 0},
                                              {Kind::kReceive, nullptr, &output[0], 5, 0},
                                              {Kind::kSend, &input[1], nullptr, 2, 1},
                                              {Kind::kReceive, nullptr, &output[5], 2, 1},
                                              {Kind::kReceive, nullptr, &output[7], 3, 2}}));
  const auto shifted = CallsAt(1, {GroupOperationKind::kShift, In(6), Out(2), -1});
  EXPECT_EQ(shifted, (std::vector<NcclCall>{{Kind::kSend, &input[0], nullptr, 6, 0},
                                            {Kind::kReceive, nullptr, &output[0], 2, 2}}));
}

TEST(NcclCallsTest, NothingIsCalledWhereNothingMoves) {
  EXPECT_TRUE(CallsAt(0, {GroupOperationKind::kBarrier}).empty());
  EXPECT_TRUE(CallsAt(0, {GroupOperationKind::kAllReduce, In(0), Out(0)}).empty());
  EXPECT_TRUE(CallsAt(0, {GroupOperationKind::kAllGather, In(0), Out(0)}).empty());
}

// 2 (n - 1) / n of an all-reduce, (n - 1) / n of its halves: what a ring sends.
TEST(NcclCallsTest, BytesAreCountedAsThoseOfARing) {
  constexpr int64_t kCount = 3 << 20;
  const auto sent = [](const GroupOperation& operation) {
    return ElementsSent(operation, PlanOperation(operation, 1, kSize, kElementBytes), 1);
  };
  EXPECT_EQ(sent({GroupOperationKind::kAllReduce, In(kCount), Out(kCount)}), kCount * 4 / 3);
  // A small one too, of which an exchange sends everything to everybody.
  EXPECT_EQ(sent({GroupOperationKind::kAllReduce, In(192), Out(192)}), 192 * 4 / 3);
  EXPECT_EQ(sent({GroupOperationKind::kReduceScatter, In(kCount), Out(kCount / 3)}),
            kCount * 2 / 3);
  EXPECT_EQ(sent({GroupOperationKind::kAllGather, In(kCount / 3), Out(kCount)}), kCount * 2 / 3);
  EXPECT_EQ(sent({GroupOperationKind::kBarrier}), 0);
}

}  // namespace
}  // namespace troupe
