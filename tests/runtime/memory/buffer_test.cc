#include "runtime/memory/buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

namespace troupe {
namespace {

int64_t Current(const MemoryLedger& ledger, MemoryTag tag) {
  return ledger.Snapshot().current_bytes[static_cast<size_t>(tag)];
}
int64_t Peak(const MemoryLedger& ledger, MemoryTag tag) {
  return ledger.Snapshot().peak_bytes[static_cast<size_t>(tag)];
}

TEST(BufferTest, IsAlignedZeroedAndCounted) {
  MemoryLedger ledger;
  {
    Buffer buffer(ledger, MemoryTag::kGrads, 1001);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    for (const std::byte byte : buffer.bytes()) ASSERT_EQ(byte, std::byte{0});
    EXPECT_EQ(Current(ledger, MemoryTag::kGrads), 1001);
    EXPECT_EQ(Current(ledger, MemoryTag::kParams), 0);
  }
  EXPECT_EQ(Current(ledger, MemoryTag::kGrads), 0);
  EXPECT_EQ(Peak(ledger, MemoryTag::kGrads), 1001);
}

TEST(BufferTest, AnUnfilledOneIsAlignedAndCountedToo) {
  MemoryLedger ledger;
  {
    Buffer buffer = Buffer::Unfilled(ledger, MemoryTag::kComm, 1001);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_EQ(buffer.num_bytes(), 1001);
    EXPECT_EQ(buffer.tag(), MemoryTag::kComm);
    EXPECT_EQ(Current(ledger, MemoryTag::kComm), 1001);
    EXPECT_TRUE(Buffer::Unfilled(ledger, MemoryTag::kComm, 0).empty());
  }
  EXPECT_EQ(Current(ledger, MemoryTag::kComm), 0);
}

TEST(BufferTest, MovingHandsTheBytesOver) {
  MemoryLedger ledger;
  Buffer a(ledger, MemoryTag::kComm, 10);
  Buffer b(ledger, MemoryTag::kComm, 20);
  b = std::move(a);
  EXPECT_EQ(Current(ledger, MemoryTag::kComm), 10);
  EXPECT_EQ(b.num_bytes(), 10);
  const Buffer c(std::move(b));
  EXPECT_TRUE(b.empty());  // NOLINT(bugprone-use-after-move): that is what is tested
  EXPECT_EQ(Current(ledger, MemoryTag::kComm), 10);
}

TEST(BufferTest, ASharedOneIsAlignedZeroedCountedAndFound) {
  MemoryLedger ledger;
  const Buffer own(ledger, MemoryTag::kGrads, 1001);
  {
    Buffer made = Buffer::Shared(ledger, MemoryTag::kGrads, 1001);
    const Buffer buffer = std::move(made);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    for (const std::byte byte : buffer.bytes()) ASSERT_EQ(byte, std::byte{0});
    EXPECT_EQ(Current(ledger, MemoryTag::kGrads), 2 * 1001);
    const auto whole = ledger.SharedAt(buffer.bytes());
    const auto part = ledger.SharedAt(buffer.bytes().subspan(1000));
    ASSERT_TRUE(whole && part);
    EXPECT_EQ(whole->offset, 0);
    EXPECT_EQ(part->offset, 1000);
    EXPECT_EQ(part->buffer, whole->buffer);
    EXPECT_EQ(part->buffer_bytes, 1001);
    EXPECT_FALSE(ledger.SharedAt({buffer.data(), 1002}));
    EXPECT_FALSE(ledger.SharedAt(own.bytes()));
    EXPECT_NE(ledger.SharedAt(Buffer::Shared(ledger, MemoryTag::kGrads, 1).bytes())->buffer,
              whole->buffer);
    MemoryLedger other;
    EXPECT_FALSE(other.SharedAt(buffer.bytes()));
  }
  EXPECT_EQ(Current(ledger, MemoryTag::kGrads), 1001);
  EXPECT_TRUE(Buffer::Shared(ledger, MemoryTag::kGrads, 0).empty());
}

TEST(MemoryLedgerTest, CountsFromSeveralThreads) {
  MemoryLedger ledger;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&ledger] {
      for (int i = 0; i < 1000; ++i) Buffer buffer(ledger, MemoryTag::kActivations, 64);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(Current(ledger, MemoryTag::kActivations), 0);
  EXPECT_GE(Peak(ledger, MemoryTag::kActivations), 64);
}

}  // namespace
}  // namespace troupe
