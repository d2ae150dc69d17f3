#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "runtime/collective/direct_transfer.h"
#include "tests/runtime/collective/element_types.h"

namespace troupe {
namespace {

constexpr auto kInt32 = static_cast<uint8_t>(DType::kInt32);

// A group that does nothing: its transfers are driven by hand.
class NoGroup : public Group {
 public:
  explicit NoGroup(int index)
      : Group({.name = "g", .ranks = {Rank(0), Rank(1), Rank(2)}, .self = Rank(index)},
              testing::ElementTypes()) {}
  Task<Status> Run(GroupOperation) override { co_return Status{}; }
};

struct GroupTransferTest : ::testing::Test {
  // In place; blocks of 4 elements.
  std::unique_ptr<GroupTransfer> AllReduce(NoGroup& group, std::vector<int32_t>& data) {
    const auto count = static_cast<int64_t>(data.size());
    GroupOperation operation{.kind = GroupOperationKind::kAllReduce,
                             .input = {kInt32, data.data(), count},
                             .output = {kInt32, data.data(), count}};
    return std::make_unique<DirectTransfer>(group, operation, 16);
  }
  // A block with bytes of its own, which counts when it is let go.
  Bulk BulkOf(std::span<const std::byte> bytes) {
    auto& copy = copies.emplace_back(bytes.begin(), bytes.end());
    return Bulk(copy, [this] { ++released; });
  }
  std::deque<std::vector<std::byte>> copies{};
  int released = 0;
  NoGroup zero{0};
  NoGroup one{1};
};

TEST_F(GroupTransferTest, ASumWaitsForAllAndForItsOwnInputToBeSent) {
  std::vector<int32_t> data = {1, 2, 3, 4, 5};
  const auto transfer = AllReduce(zero, data);
  const GroupBlock head{.sequence = 1,
                        .kind = static_cast<uint8_t>(GroupOperationKind::kAllReduce),
                        .dtype = kInt32,
                        .part = BlockPart::kSum,
                        .total = 5,
                        .count = 5,
                        .expects = 5};
  GroupBlock tail = head;
  tail.first = 4;
  const std::vector<int32_t> theirs = {10, 20, 30, 40, 50};
  const auto bytes = std::as_bytes(std::span(theirs));
  for (const int from : {1, 2}) {
    ASSERT_TRUE(transfer->Take(from, head, BulkOf(bytes.first(16))).ok());
    ASSERT_TRUE(transfer->Take(from, tail, BulkOf(bytes.subspan(16))).ok());
  }
  EXPECT_EQ(data[0], 1) << "it was overwritten before it was sent";
  EXPECT_EQ(released, 0);
  for (const int to : {1, 2}) {
    const auto block = transfer->Next(to);
    ASSERT_TRUE(block);
    EXPECT_EQ(block->bytes.size(), 16u);
    transfer->Sent(to, *block);
  }
  EXPECT_EQ(data, (std::vector<int32_t>{21, 42, 63, 84, 5}));
  EXPECT_EQ(released, 2);
  for (const int to : {1, 2}) {
    EXPECT_FALSE(transfer->done());
    transfer->Sent(to, *transfer->Next(to));
    EXPECT_FALSE(transfer->Next(to));
  }
  EXPECT_EQ(data[4], 105);
  EXPECT_TRUE(transfer->done());
  EXPECT_EQ(transfer->FirstMissing(), -1);
}

// Bytes from outside: nothing is used that was not to come next, whatever they say.
TEST_F(GroupTransferTest, NoiseIsRefused) {
  std::mt19937 random(5);
  std::vector<int32_t> data(9000);
  const auto transfer = AllReduce(one, data);
  const std::vector<std::byte> bytes(64, std::byte{1});
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    GroupBlock block{.sequence = 1, .part = static_cast<BlockPart>(random() % 4)};
    const int64_t numbers[] = {0, 3000, 3008, 2984, 6016, -1, 1, 4, int64_t{1} << 62};
    block.count = numbers[random() % 9];
    block.expects = numbers[random() % 9];
    block.first = numbers[random() % 9] + static_cast<int64_t>(random() % 3);
    const size_t size = random() % 2 == 0 ? 16 : random() % 64;
    const int from = random() % 2 == 0 ? 0 : 2;
    if (!transfer->Take(from, block, BulkOf(std::span(bytes).first(size))).ok()) ++refused;
  }
  EXPECT_GT(refused, 19'000);
  EXPECT_FALSE(transfer->done());
}

TEST_F(GroupTransferTest, WhoIsLeastFarIsNamedFirst) {
  std::vector<int32_t> data(5);
  const auto transfer = AllReduce(one, data);
  EXPECT_EQ(transfer->FirstMissing(), 0);
  GroupBlock block{.sequence = 1, .part = BlockPart::kSum, .count = 5, .expects = 5};
  ASSERT_TRUE(transfer->Take(0, block, BulkOf(std::as_bytes(std::span(data)).first(16))).ok());
  EXPECT_EQ(transfer->FirstMissing(), 2);
  EXPECT_EQ(transfer->Missing(), "nothing from rank 2; 16 of 20 bytes from rank 0");
}

// A group of one copies what there is to copy, and suspends nothing: the task that awaits it ends
// in its first stretch.
TEST(GroupOfOne, NothingWaits) {
  class Alone : public Group {
   public:
    Alone() : Group({.name = "g", .ranks = {Rank(4)}, .self = Rank(4)}, testing::ElementTypes()) {}
    Task<Status> Run(GroupOperation) override {
      ADD_FAILURE() << "a group of one asked its backend";
      co_return Status{};
    }
  } group;
  int32_t in[2] = {3, 4};
  int32_t out[2] = {};
  const auto body = [&]() -> Task<Status> {
    const ConstElements from(kInt32, in, 2);
    const Elements to{kInt32, out, 2};
    const std::vector<int64_t> counts = {2};
    CO_RETURN_IF_ERROR(co_await group.Barrier());
    CO_RETURN_IF_ERROR(co_await group.AllReduce(to));
    CO_RETURN_IF_ERROR(co_await group.ReduceScatter(from, to));
    CO_RETURN_IF_ERROR(co_await group.AllGather(from, to));
    CO_RETURN_IF_ERROR(co_await group.AllToAll(from, counts, to, counts));
    CO_RETURN_IF_ERROR(co_await group.Reduce(from, to, 0));
    CO_RETURN_IF_ERROR(co_await group.Broadcast(to, 0));
    co_return co_await group.Shift(from, to, 3);
  };
  Task<Status> task = body();
  task.Start();
  ASSERT_TRUE(task.done());
  EXPECT_TRUE(task.Take().ok());
  EXPECT_EQ(out[1], 4);
}

}  // namespace
}  // namespace troupe
