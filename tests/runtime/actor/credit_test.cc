#include "runtime/actor/credit.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <vector>

namespace troupe {
namespace {

TEST(Credit, SpendsUpToTheLimitAndNoFurther) {
  CreditSender sender(2);
  EXPECT_TRUE(sender.TrySpend());
  EXPECT_TRUE(sender.TrySpend());
  EXPECT_FALSE(sender.TrySpend());
  EXPECT_TRUE(sender.Raise(3)) << "there is credit and was none";
  EXPECT_FALSE(sender.Raise(4)) << "there was credit already";
  EXPECT_FALSE(sender.Raise(2)) << "an old announcement";
  EXPECT_EQ(sender.limit(), 4);
  EXPECT_EQ(sender.available(), 2);
}

TEST(CreditDeathTest, AMessageWithoutCreditIsABrokenInvariant) {
  CreditReceiver receiver(1);
  receiver.Take();
  EXPECT_DEATH(receiver.Take(), "without credit");
  receiver.Free();
  EXPECT_DEATH(receiver.Free(), "freed twice");
}

// Announcements lost, doubled and out of order: never more unfreed than slots, and once any later
// announcement arrives, nothing is lost for good.
TEST(Credit, SurvivesAnyFateOfItsAnnouncements) {
  rc::check("random spends, frees and announcements", [] {
    const int slots = *rc::gen::inRange(1, 6);
    CreditSender sender(slots);
    CreditReceiver receiver(slots);
    std::vector<int64_t> announced;
    const int operations = *rc::gen::inRange(1, 100);
    for (int i = 0; i < operations; ++i) {
      switch (*rc::gen::inRange(0, 3)) {
        case 0:
          if (sender.TrySpend()) receiver.Take();  // aborts without credit
          break;
        case 1:
          if (receiver.in_use() > 0) announced.push_back(receiver.Free());
          break;
        default:
          if (!announced.empty()) {
            sender.Raise(announced[*rc::gen::inRange<size_t>(0, announced.size())]);
          }
      }
      RC_ASSERT(receiver.in_use() <= slots);
      RC_ASSERT(sender.sent() <= sender.limit());
    }
    sender.Raise(receiver.limit());
    RC_ASSERT(sender.available() == slots - receiver.in_use());
  });
}

}  // namespace
}  // namespace troupe
