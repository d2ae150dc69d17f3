#include "runtime/memory/shared_region.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/memory/buffer.h"

namespace troupe {
namespace {

TEST(SharedRegionTest, IsTheSameMemoryInAnotherProcess) {
  MemoryLedger ledger;
  auto region = SharedRegion::Create(10'000, &ledger);
  ASSERT_TRUE(region.ok()) << region.error().message;
  EXPECT_EQ(ledger.Snapshot().current_bytes[static_cast<size_t>(MemoryTag::kComm)], 10'000);
  for (const std::byte byte : region->bytes()) ASSERT_EQ(byte, std::byte{0});
  const pid_t owner = getpid();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto mapped = SharedRegion::Map(owner, region->descriptor(), 10'000);
    if (mapped.ok()) mapped->bytes()[9'999] = std::byte{5};
    _exit(mapped.ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(region->bytes()[9'999], std::byte{5});
}

TEST(SharedRegionTest, OutlivesItsOwnerWhereItIsMapped) {
  auto region = SharedRegion::Create(100, nullptr);
  ASSERT_TRUE(region.ok());
  region->bytes()[0] = std::byte{3};
  const auto mapped = SharedRegion::Map(getpid(), region->descriptor(), 100);
  ASSERT_TRUE(mapped.ok()) << mapped.error().message;
  const int descriptor = region->descriptor();
  region = SharedRegion();
  EXPECT_EQ(mapped->bytes()[0], std::byte{3});
  EXPECT_FALSE(SharedRegion::Map(getpid(), descriptor, 100).ok()) << "it is closed";
}

TEST(SharedRegionTest, WhatIsDiscardedTakesNoMemoryWhereItIsMapped) {
  constexpr int64_t kBytes = 1 << 20;
  auto region = SharedRegion::Create(kBytes, nullptr);
  ASSERT_TRUE(region.ok());
  const auto mapped = SharedRegion::Map(getpid(), region->descriptor(), kBytes);
  ASSERT_TRUE(mapped.ok());
  mapped->bytes()[7] = std::byte{1};
  const auto blocks = [&] {
    struct stat status {};
    EXPECT_EQ(fstat(region->descriptor(), &status), 0);
    return status.st_blocks;
  };
  EXPECT_EQ(blocks() * 512, kBytes);
  region->Discard();
  EXPECT_EQ(blocks(), 0);
  EXPECT_EQ(mapped->bytes()[7], std::byte{0});
}

TEST(SharedRegionTest, IsAnErrorWhereFilesMayNotBeSoLarge) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit small{.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
    MemoryLedger ledger;
    const bool told = setrlimit(RLIMIT_FSIZE, &small) == 0 &&
                      !SharedRegion::Create(4097, nullptr).ok() &&
                      SharedRegion::Create(4096, nullptr).ok();
    // A buffer takes other memory then.
    const Buffer buffer = Buffer::Shared(ledger, MemoryTag::kGrads, 4097);
    _exit(told && buffer.num_bytes() == 4097 && !ledger.SharedAt(buffer.bytes()) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(SharedRegionTest, RefusesWhatIsShorterOrCouldShrink) {
  auto region = SharedRegion::Create(4096, nullptr);
  ASSERT_TRUE(region.ok());
  EXPECT_FALSE(SharedRegion::Map(getpid(), region->descriptor(), 4097).ok());
  const int unsealed = memfd_create("unsealed", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(unsealed, 4096), 0);
  const auto mapped = SharedRegion::Map(getpid(), unsealed, 4096);
  ASSERT_FALSE(mapped.ok());
  EXPECT_THAT(mapped.error().message, ::testing::HasSubstr("not 4096 bytes of sealed memory"));
  close(unsealed);
  EXPECT_NE(ftruncate(region->descriptor(), 0), 0) << "sealed";
}

}  // namespace
}  // namespace troupe
