#include "coordinator/cli/set_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace troupe {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> WordsOf(std::vector<const char*> line) {
  line.insert(line.begin(), "troupe");
  auto words = ReversedWords(static_cast<int>(line.size()), line.data());
  std::ranges::reverse(words);
  return words;
}

TEST(SetWordsTest, OneFlagTakesSeveralOverrides) {
  EXPECT_THAT(WordsOf({"run", "--set", "a.b=1", "c=2", "job.yaml"}),
              ElementsAre("run", "--set", "a.b=1", "--set", "c=2", "job.yaml"));
  EXPECT_THAT(
      WordsOf({"run", "job.yaml", "--set=a.b=1", "c=", "d=x y", "-o", "json"}),
      ElementsAre("run", "job.yaml", "--set=a.b=1", "--set", "c=", "--set", "d=x y", "-o", "json"));
}

TEST(SetWordsTest, OtherWordsStayAsTheyAre) {
  EXPECT_THAT(WordsOf({"run", "a=1", "--set"}), ElementsAre("run", "a=1", "--set"));
  EXPECT_THAT(WordsOf({"run", "--set", "a=1", "./x=y.yaml", "b=2"}),
              ElementsAre("run", "--set", "a=1", "./x=y.yaml", "b=2"))
      << "a file ends the list";
  EXPECT_THAT(WordsOf({}), ElementsAre());
}

}  // namespace
}  // namespace troupe
