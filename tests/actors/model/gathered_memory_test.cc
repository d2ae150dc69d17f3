#include "actors/model/gathered_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

constexpr auto kComm = MemoryTag::kComm;
constexpr auto kWorkspace = MemoryTag::kWorkspace;

struct GatheredMemoryTest : ::testing::Test {
  int64_t Allocated(MemoryTag tag) const {
    return ledger.Snapshot().current_bytes[static_cast<size_t>(tag)];
  }
  int64_t IdleBytes(MemoryTag tag) const {
    return ledger.Snapshot().idle_bytes[static_cast<size_t>(tag)];
  }
  static MemoryPrediction Most(int64_t num_bytes) {
    MemoryPrediction most{};
    most.fill(num_bytes);
    return most;
  }

  MemoryLedger ledger;
  GatheredMemory memory{ledger, Most(1000)};
};

TEST_F(GatheredMemoryTest, TheNextOfEqualSizeHasWhatWasReturned) {
  Buffer first = memory.Take(kComm, 400);
  const std::byte* at = first.data();
  memory.Return(std::move(first));
  EXPECT_EQ(Allocated(kComm), 400);
  EXPECT_EQ(IdleBytes(kComm), 400);
  const Buffer again = memory.Take(kComm, 400);
  EXPECT_EQ(again.data(), at);
  EXPECT_EQ(Allocated(kComm), 400);
  EXPECT_EQ(IdleBytes(kComm), 0);
}

TEST_F(GatheredMemoryTest, OtherSizesTagsAndLayoutsHaveTheirOwn) {
  memory.Return(memory.Take(kComm, 400));
  const Buffer other_size = memory.Take(kComm, 300);
  const Buffer other_tag = memory.Take(kWorkspace, 400);
  const Buffer other_layout = memory.Take(kComm, 300, /*layout=*/1);
  EXPECT_EQ(IdleBytes(kComm), 400);
  EXPECT_EQ(Allocated(kComm), 1000);
  EXPECT_EQ(Allocated(kWorkspace), 400);
}

TEST_F(GatheredMemoryTest, IdleMemoryGoesBeforeMoreIsAllocatedThanWasPredicted) {
  Buffer large = memory.Take(kComm, 600);
  Buffer small = memory.Take(kComm, 400);
  memory.Return(std::move(large));
  memory.Return(std::move(small));
  const Buffer middle = memory.Take(kComm, 500);  // the one that lay idle the longest went
  EXPECT_EQ(Allocated(kComm), 900);
  EXPECT_EQ(IdleBytes(kComm), 400);
  const Buffer more = memory.Take(kComm, 700);  // what is in use comes first
  EXPECT_EQ(Allocated(kComm), 1200);
  EXPECT_EQ(IdleBytes(kComm), 0);
}

TEST_F(GatheredMemoryTest, NewMemoryIsZero) {
  const Buffer buffer = memory.Take(kWorkspace, 128);
  EXPECT_TRUE(std::ranges::all_of(buffer.bytes(), [](std::byte b) { return b == std::byte{0}; }));
}

}  // namespace
}  // namespace troupe
