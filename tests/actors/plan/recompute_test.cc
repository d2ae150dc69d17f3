#include "actors/plan/recompute.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST(RecomputeOf, TakesItsNamesAndElseComputesNothingAgain) {
  EXPECT_EQ(*RecomputeOf({}), Recompute::kNone);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kAttention, Recompute::kFull}) {
    proto::Train train;
    train.set_recompute(std::string(RecomputeName(recompute)));
    EXPECT_EQ(*RecomputeOf(train), recompute) << train.recompute();
  }
}

TEST(RecomputeOf, RefusesOtherWordsAndShowsLittleOfThem) {
  proto::Train train;
  train.set_recompute(std::string(1000, 'x'));
  const auto refused = RecomputeOf(train);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("x: use none (everything is kept"));
  EXPECT_LT(refused.error().message.size(), 300u);
}

}  // namespace
}  // namespace troupe
