#include "runtime/collective/nccl/nccl_group.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "tests/runtime/collective/group_conformance.h"
#include "tests/runtime/collective/nccl/nccl_world.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

INSTANTIATE_TYPED_TEST_SUITE_P(Nccl, GroupConformance, NcclWorld);

constexpr const char* kAsyncError = "ncclCommGetAsyncError";

class NcclGroupTest : public GroupConformance<NcclWorld> {
 protected:
  void Begin(int size, NcclCompletion completion) {
    Start(size);
    world->completion = completion;
  }
  // The rank's calls, without looks at how things stand.
  static std::vector<std::string> CallsOf(int rank) {
    std::vector<std::string> calls = nccl_stand_in::CallsOf(rank);
    std::erase(calls, kAsyncError);
    return calls;
  }
  static Task<Status> CloseGroup(Group& group) { return static_cast<NcclGroup&>(group).Close(); }
  Body AllReduceOf(std::vector<Tensor>& data) {
    return [&data](Group& g) -> Task<Status> {
      co_return co_await g.AllReduce(data[static_cast<size_t>(g.index())].elements());
    };
  }
  void ExpectAll(const std::vector<std::optional<Status>>& ended, const std::string& message) {
    for (const auto& status : ended) EXPECT_EQ(MessageOf(status), message);
  }
  // Both members have aborted, and nothing is left of their communicators.
  void ExpectAborted() {
    for (const int rank : {0, 1}) {
      const auto calls = CallsOf(rank);
      ASSERT_GE(calls.size(), 2u);
      EXPECT_THAT(std::vector(calls.end() - 2, calls.end()),
                  ElementsAre("ncclCommAbort", "cudaStreamSynchronize"))
          << rank;
    }
    EXPECT_EQ(nccl_stand_in::NumCommunicators(), 0);
  }
};

TEST_F(NcclGroupTest, CallsComeInNcclsOrder) {
  Begin(2, NcclCompletion::kEnqueued);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  auto exchanged = RandomOnes(DType::kBFloat16, 3, 2);
  const std::vector<int64_t> counts = {1, 2};
  RunAll(group, AllReduceOf(data));
  RunAll(group, [&](Group& g) -> Task<Status> {
    const auto self = static_cast<size_t>(g.index());
    const int64_t own = counts[self];
    const std::vector<int64_t> sends = {own, own};
    Tensor in(DType::kBFloat16, 2 * own);
    CO_RETURN_IF_ERROR(
        co_await g.AllToAll(in.elements(), sends, exchanged[self].elements(), counts));
    co_return co_await g.Barrier();
  });
  RunAll(group, CloseGroup);
  EXPECT_EQ(nccl_stand_in::NumCommunicators(), 0);
  EXPECT_THAT(CallsOf(0),
              ElementsAre("ncclGetUniqueId", "ncclCommInitRankConfig 0 of 2 non-blocking",
                          "ncclAllReduce 12 float32", "cudaEventRecord", "ncclGroupStart",
                          "ncclSend 1 bfloat16 to 0", "ncclRecv 1 bfloat16 from 0",
                          "ncclSend 1 bfloat16 to 1", "ncclRecv 2 bfloat16 from 1", "ncclGroupEnd",
                          "cudaEventRecord", "ncclCommFinalize", "ncclCommDestroy"));
  EXPECT_EQ(CallsOf(1)[0], "ncclCommInitRankConfig 1 of 2 non-blocking");
}

// What NCCL has only begun is looked at before it is called again.
TEST_F(NcclGroupTest, OneCallIsInProgressAtATime) {
  Begin(2, NcclCompletion::kFinished);
  auto& group = OpenAll();
  std::vector<std::vector<Tensor>> data;
  for (const int64_t count : {30, 20, 10}) data.push_back(RandomOnes(DType::kInt32, count, 2));
  std::vector<std::optional<Status>> ended(6);
  for (int rank = 0; rank < 2; ++rank) {
    for (int i = 0; i < 3; ++i) {
      Launch(group, rank, AllReduceOf(data[static_cast<size_t>(i)]),
             &ended[static_cast<size_t>(3 * rank + i)]);
    }
  }
  ASSERT_TRUE(world->Until(
      [&] { return std::ranges::all_of(ended, [](const auto& s) { return s.has_value(); }); }));
  RunAll(group, CloseGroup);
  for (const int rank : {0, 1}) {
    const std::vector<std::string> calls = nccl_stand_in::CallsOf(rank);
    std::vector<std::string> reduced;
    for (size_t i = 0; i < calls.size(); ++i) {
      const bool begins = calls[i].starts_with("ncclCommInit") ||
                          calls[i].starts_with("ncclAllReduce") || calls[i] == "ncclCommFinalize";
      if (begins) {
        EXPECT_EQ(calls[i + 1], kAsyncError) << calls[i];
      }
      if (calls[i].starts_with("ncclAllReduce")) reduced.push_back(calls[i]);
    }
    EXPECT_THAT(reduced, ElementsAre("ncclAllReduce 30 int32", "ncclAllReduce 20 int32",
                                     "ncclAllReduce 10 int32"));
  }
}

TEST_F(NcclGroupTest, AnEnqueuedOperationReturnsBeforeTheDeviceHasComeToIt) {
  Begin(2, NcclCompletion::kEnqueued);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  nccl_stand_in::HangDevice(1);
  const std::string before = data[0].Bytes();
  RunAll(group, AllReduceOf(data));
  RunAll(group, [](Group& g) { return g.Barrier(); });
  EXPECT_EQ(data[0].Bytes(), before);
  // Both barriers and no all-reduce ended on the device.
  EXPECT_EQ(group.at(0).traffic(GroupOperationKind::kBarrier).num_operations, 1);
  EXPECT_EQ(group.at(0).traffic(GroupOperationKind::kAllReduce).num_operations, 0);
  EXPECT_EQ(group.at(0).traffic(GroupOperationKind::kAllReduce).sent_bytes, 48);
}

TEST_F(NcclGroupTest, AFinishedOperationReturnsWhenTheDeviceHasPassedIt) {
  Begin(2, NcclCompletion::kFinished);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  nccl_stand_in::HangDevice(1);
  std::vector<std::optional<Status>> ended(2);
  for (const int i : {0, 1}) Launch(group, i, AllReduceOf(data), &ended[static_cast<size_t>(i)]);
  int passes = 0;
  ASSERT_TRUE(world->Until([&] { return ++passes > 300; }));
  EXPECT_FALSE(ended[0] || ended[1]);
  group.at(0).Break(MakeError(ErrorCode::kCancelled, "group all: enough"));
  ASSERT_TRUE(world->Until([&] { return ended[0] && ended[1]; }));
  ExpectAll(ended, "group all: enough");
  ExpectAborted();
}

TEST_F(NcclGroupTest, AnErrorOnOneDeviceAbortsAllMembers) {
  Begin(2, NcclCompletion::kFinished);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  nccl_stand_in::HangDevice(0);
  std::vector<std::optional<Status>> ended(2);
  for (const int i : {0, 1}) Launch(group, i, AllReduceOf(data), &ended[static_cast<size_t>(i)]);
  ASSERT_TRUE(world->Until([&] { return world->scheduler(1).waits().size() == 1; }));
  nccl_stand_in::SetAsyncError(1, ncclRemoteError);
  ASSERT_TRUE(world->Until([&] { return ended[0] && ended[1]; }));
  ExpectAll(ended,
            "group all: rank 1: NCCL: remote process exited or there was a network error: said by "
            "the stand-in");
  EXPECT_EQ(ended[0]->error().code, ErrorCode::kPeerDown);
  ExpectAborted();
  ExpectAll(LaunchAll(group, AllReduceOf(data)), MessageOf(ended[0]));
  ExpectAll(LaunchAll(group, CloseGroup), MessageOf(ended[0]));
}

// With kEnqueued nobody waits any more: the next operation says it, and Close does.
TEST_F(NcclGroupTest, AnErrorAfterAnOperationReturnedEndsTheNextOne) {
  Begin(2, NcclCompletion::kEnqueued);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  nccl_stand_in::HangDevice(0);
  RunAll(group, AllReduceOf(data));
  nccl_stand_in::SetAsyncError(1, ncclSystemError);
  ASSERT_TRUE(world->Until([&] { return nccl_stand_in::NumCommunicators() == 0; }));
  const std::string said = "group all: rank 1: NCCL: unhandled system error: said by the stand-in";
  ExpectAll(LaunchAll(group, AllReduceOf(data)), said);
  ExpectAll(LaunchAll(group, CloseGroup), said);
}

TEST_F(NcclGroupTest, ACallThatFailsEndsItsOperationEverywhere) {
  for (const char* function : {"ncclAllReduce", "ncclSend", "ncclGroupEnd"}) {
    Begin(2, NcclCompletion::kFinished);
    auto& group = OpenAll();
    nccl_stand_in::FailNext(0, function, ncclSystemError);
    auto data = RandomOnes(DType::kFloat32, 12, 2);
    auto shifted = RandomOnes(DType::kFloat32, 12, 2);
    const auto ended = LaunchAll(group, [&](Group& g) -> Task<Status> {
      const auto self = static_cast<size_t>(g.index());
      CO_RETURN_IF_ERROR(co_await g.AllReduce(data[self].elements()));
      co_return co_await g.Shift(data[self].elements(), shifted[self].elements(), 1);
    });
    ExpectAll(ended, "group all: rank 0: NCCL: unhandled system error: said by the stand-in");
    ExpectAborted();
    // A group of calls is ended however they went.
    const auto calls = CallsOf(0);
    EXPECT_EQ(std::ranges::count(calls, "ncclGroupStart"),
              std::ranges::count(calls, "ncclGroupEnd"));
  }
}

TEST_F(NcclGroupTest, AMemberThatCannotBeginEndsTheGroup) {
  Begin(2, NcclCompletion::kFinished);
  nccl_stand_in::FailNext(1, "ncclCommInitRankConfig", ncclSystemError);
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  ExpectAll(LaunchAll(OpenAll(), AllReduceOf(data)),
            "group all: rank 1: NCCL: unhandled system error: said by the stand-in");
  Begin(2, NcclCompletion::kFinished);
  nccl_stand_in::SetNumDevices(1);
  ExpectAll(LaunchAll(OpenAll(), AllReduceOf(data)),
            "group all: rank 1: CUDA: no CUDA-capable device is detected");
  Begin(2, NcclCompletion::kFinished);
  world->one_device = true;
  for (const auto& status : LaunchAll(OpenAll(), AllReduceOf(data))) {
    EXPECT_THAT(MessageOf(status), StartsWith("group all: ranks 0 and 1 share GPU 0000:00:00.0"));
  }
}

TEST_F(NcclGroupTest, WhatNeverComesEndsByTheDeadline) {
  constexpr int64_t kDeadlineMs = 300;
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  const struct {
    std::function<void()> hang;
    std::string said;
  } cases[] = {
      {[] { nccl_stand_in::HangIn(0, "ncclCommInitRankConfig"); },
       "rank 0: group all: its NCCL communicator: its beginning: deadline 300 ms passed"},
      {[] { nccl_stand_in::HangIn(0, "ncclAllReduce"); },
       "microbatch 3 forward, group all: all-reduce 1 of 12 float32: its end on the device: "
       "deadline 300 ms passed in step 12, all members have begun it"},
      {[] { nccl_stand_in::HangDevice(1); },
       "microbatch 3 forward, group all: all-reduce 1 of 12 float32: its end on the device: "
       "deadline 300 ms passed in step 12, all members have begun it"},
      {[] { nccl_stand_in::HangIn(0, "ncclCommFinalize"); },
       // By rank 0 of its own end, or by rank 1, which has come to its end, of rank 0.
       "group all: its NCCL communicator: "},
  };
  for (const auto& each : cases) {
    Begin(2, NcclCompletion::kFinished);
    each.hang();
    auto& group = OpenAll(kDeadlineMs);
    std::vector<std::optional<Status>> ended = LaunchAll(group, [&](Group& g) -> Task<Status> {
      CO_RETURN_IF_ERROR(
          co_await g.AllReduce(data[static_cast<size_t>(g.index())].elements(),
                               {.activity = "forward", .step = 12, .microbatch = 3}));
      co_return co_await CloseGroup(g);
    });
    EXPECT_THAT(MessageOf(ended[0]), HasSubstr(each.said));
    EXPECT_EQ(ended[0]->error().code, ErrorCode::kDeadlineExceeded);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(world->scheduler(i).waits().size(), 0);
  }
}

// What hangs on the device is on the board, as any wait.
TEST_F(NcclGroupTest, TheDeviceIsAWaitToo) {
  Begin(2, NcclCompletion::kEnqueued);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  nccl_stand_in::HangDevice(1);
  RunAll(group, AllReduceOf(data));
  ASSERT_TRUE(world->Until([&] {
    const auto waits = world->scheduler(0).waits().Snapshot();
    return waits.size() == 1 &&
           waits[0].owed == "group all: all-reduce 1 of 12 float32: its end on the device";
  }));
}

TEST_F(NcclGroupTest, AMemberThatDiesAbortsTheOthers) {
  Begin(2, NcclCompletion::kEnqueued);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  nccl_stand_in::HangDevice(1);
  RunAll(group, AllReduceOf(data));
  world->Kill(1);
  ASSERT_TRUE(world->Until([&] { return nccl_stand_in::NumCommunicators() == 1; }));
  EXPECT_EQ(CallsOf(0).back(), "cudaStreamSynchronize");
  std::optional<Status> ended;
  Launch(group, 0, AllReduceOf(data), &ended);
  ASSERT_TRUE(world->Until([&] { return ended.has_value(); }));
  EXPECT_THAT(MessageOf(ended), HasSubstr("rank 1"));
  EXPECT_EQ(ended->error().code, ErrorCode::kPeerDown);
}

TEST_F(NcclGroupTest, CloseWaitsForWhatIsOnTheDevice) {
  Begin(2, NcclCompletion::kEnqueued);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 5000, 2);
  const std::string expected = SerialSum(DType::kFloat32, data);
  RunAll(group, [&](Group& g) -> Task<Status> {
    CO_RETURN_IF_ERROR(co_await g.AllReduce(data[static_cast<size_t>(g.index())].elements()));
    co_return co_await CloseGroup(g);
  });
  for (const Tensor& each : data) EXPECT_EQ(each.Bytes(), expected);
  EXPECT_EQ(group.at(0).traffic(GroupOperationKind::kAllReduce).num_operations, 1);
  ExpectAll(LaunchAll(group, AllReduceOf(data)), "group all: it is closed");
}

// Where its runs lie, each member decides by itself: the calls are the same wherever it is.
TEST_F(NcclGroupTest, RunsMayLieElsewhereAtEachMember) {
  Begin(2, NcclCompletion::kFinished);
  auto& group = OpenAll();
  auto in = RandomOnes(DType::kInt32, 8, 2);
  std::vector<Tensor> sums(2, Tensor(DType::kInt32, 4));
  const std::vector<ElementRun> parts[] = {{{0, 4}, {4, 4}}, {{4, 4}, {0, 4}}};
  RunAll(group, [&](Group& g) -> Task<Status> {
    const auto self = static_cast<size_t>(g.index());
    co_return co_await g.ReduceScatter(in[self].elements(), sums[self].elements(),
                                       std::span<const ElementRun>(parts[self]));
  });
  const auto at = [](const Tensor& tensor, int64_t element) {
    int32_t value = 0;
    std::memcpy(&value, tensor.Bytes().data() + 4 * element, sizeof(value));
    return value;
  };
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(at(sums[0], i), at(in[0], i) + at(in[1], 4 + i));
    EXPECT_EQ(at(sums[1], i), at(in[0], 4 + i) + at(in[1], i));
  }
}

// Finalizing takes all members: none ends before each has done it, and an end is no loss then.
TEST_F(NcclGroupTest, AMemberMayEndRightAfterItsClose) {
  for (const int first : {0, 1}) {
    Begin(2, NcclCompletion::kEnqueued);
    auto& group = OpenAll();
    auto data = RandomOnes(DType::kFloat32, 12, 2);
    RunAll(group, AllReduceOf(data));
    std::vector<std::optional<Status>> ended(2);
    const auto one = static_cast<size_t>(first);
    const size_t other = 1 - one;
    Launch(group, first, CloseGroup, &ended[one]);
    ASSERT_TRUE(world->Until([&] { return CallsOf(first).back() == "ncclCommFinalize"; }));
    int passes = 0;
    ASSERT_TRUE(world->Until([&] { return ++passes > 300; }));
    EXPECT_FALSE(ended[one].has_value());
    Launch(group, 1 - first, CloseGroup, &ended[other]);
    ASSERT_TRUE(world->Until([&] { return ended[one].has_value(); }));
    world->Kill(first);
    ASSERT_TRUE(world->Until([&] { return ended[other].has_value(); }));
    ExpectAll(ended, "OK");
  }
}

// A group of one is NCCL's as well: its memory is the device's, which the host cannot copy.
TEST_F(NcclGroupTest, AGroupOfOneIsEnqueuedAsAnyOther) {
  Begin(1, NcclCompletion::kFinished);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 7, 1);
  Tensor gathered(DType::kFloat32, 7);
  RunAll(group, [&](Group& g) { return g.AllGather(data[0].elements(), gathered.elements()); });
  EXPECT_EQ(gathered.Bytes(), data[0].Bytes());
  EXPECT_EQ(CallsOf(0)[2], "ncclAllGather 7 float32");
}

TEST_F(NcclGroupTest, AnEndWithoutCloseAborts) {
  Begin(2, NcclCompletion::kEnqueued);
  auto& group = OpenAll();
  auto data = RandomOnes(DType::kFloat32, 12, 2);
  nccl_stand_in::HangDevice(0);
  RunAll(group, AllReduceOf(data));
  group.scopes.clear();
  group.groups.clear();
  ExpectAborted();
}

}  // namespace
}  // namespace troupe
