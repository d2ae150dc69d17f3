#include "coordinator/cli/set_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::ElementsAre;

TEST(SetWordsTest, OneFlagTakesSeveralOverrides) {
  EXPECT_THAT(WithEachSet({"run", "--set", "a.b=1", "c=2", "job.yaml"}),
              ElementsAre("run", "--set", "a.b=1", "--set", "c=2", "job.yaml"));
  EXPECT_THAT(
      WithEachSet({"run", "job.yaml", "--set=a.b=1", "c=", "d=x y", "-o", "json"}),
      ElementsAre("run", "job.yaml", "--set=a.b=1", "--set", "c=", "--set", "d=x y", "-o", "json"));
}

TEST(SetWordsTest, OtherWordsStayAsTheyAre) {
  EXPECT_THAT(WithEachSet({"run", "a=1", "--set"}), ElementsAre("run", "a=1", "--set"));
  EXPECT_THAT(WithEachSet({"run", "--set", "a=1", "./x=y.yaml", "b=2"}),
              ElementsAre("run", "--set", "a=1", "./x=y.yaml", "b=2"))
      << "a file ends the list";
  EXPECT_THAT(WithEachSet({}), ElementsAre());
}

}  // namespace
}  // namespace troupe
