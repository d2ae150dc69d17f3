#include "runtime/base/all_reduce_parts.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

int64_t SentByAll(const AllReduceParts& parts) {
  int64_t sent = 0;
  for (size_t member = 0; member < parts.summed.size(); ++member) {
    sent += parts.ElementsSentBy(static_cast<int>(member));
  }
  return sent;
}

TEST(AllReduceParts, CoverTheWholeOnceAndBeginAtCacheLines) {
  for (const int members : {2, 3, 4, 7, 8}) {
    for (const int64_t count : {4097, 5000, 8192, 100'003}) {
      const AllReduceParts parts = DivideAllReduce(count, 4, members);
      ASSERT_FALSE(parts.everywhere);
      int64_t next = 0;
      for (const ElementRun& part : parts.summed) {
        EXPECT_EQ(part.first, next);
        if (part.count > 0) {
          EXPECT_EQ(part.first * 4 % 64, 0);
        }
        next += part.count;
      }
      EXPECT_EQ(next, count);
      EXPECT_EQ(SentByAll(parts), 2 * (members - 1) * count);
    }
  }
}

TEST(AllReduceParts, WhoOwnsMoreSendsMore) {
  const AllReduceParts parts = DivideAllReduce(10'000, 4, 3);
  EXPECT_EQ(parts.summed[0].count, 3392);
  EXPECT_EQ(parts.summed[2].count, 10'000 - 2 * 3392);
  EXPECT_EQ(parts.ElementsSentBy(0), 10'000 + 3392);
  EXPECT_EQ(parts.ElementsSentBy(2), 10'000 + 3216);
}

// Whatever its size, a ring's members send 2 (n - 1) count together, and each as much as its parts
// say.
TEST(AllReduceParts, AlongARingEachSendsAllButOnePartTwice) {
  for (const int members : {1, 2, 3, 4, 7}) {
    for (const int64_t count : {0, 1, 3, 64, 4096, 100'003}) {
      const AllReduceParts parts = DivideRing(count, members);
      EXPECT_FALSE(parts.everywhere);
      int64_t sent = 0;
      for (int member = 0; member < members; ++member) sent += parts.ElementsSentInRingBy(member);
      EXPECT_EQ(sent, 2 * (members - 1) * count);
    }
  }
  EXPECT_EQ(DivideRing(4096, 4).ElementsSentInRingBy(1), 2 * 4096 / 4 * 3);
  EXPECT_EQ(DivideRing(100, 4).ElementsSentInRingBy(0), 2 * 100 - 64 - 36);
}

TEST(AllReduceParts, ASmallOneIsSummedByEverybody) {
  const AllReduceParts parts = DivideAllReduce(4096, 4, 3);
  EXPECT_TRUE(parts.everywhere);
  EXPECT_EQ(parts.ElementsSentBy(1), 2 * 4096);
  EXPECT_EQ(DivideAllReduce(100, 4, 1).ElementsSentBy(0), 0) << "nobody else is there";
}

}  // namespace
}  // namespace troupe
