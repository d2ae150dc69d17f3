#include "runtime/base/inline_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::ElementsAre;

InlineList<int, 3> ListOf(std::initializer_list<int> values) {
  InlineList<int, 3> list;
  for (const int value : values) list.push_back(value);
  return list;
}

TEST(InlineListTest, KeepsItsOrder) {
  const auto list = ListOf({5, 6, 7});
  EXPECT_THAT(list, ElementsAre(5, 6, 7));
  EXPECT_EQ(list.front(), 5);
  EXPECT_EQ(list.size(), 3U);
  EXPECT_TRUE(ListOf({}).empty());
}

TEST(InlineListTest, ErasesAtAnyPlace) {
  for (size_t place = 0; place < 3; ++place) {
    auto list = ListOf({5, 6, 7});
    list.erase(list.begin() + place);
    EXPECT_EQ(list.size(), 2U);
    EXPECT_EQ(list.front(), place == 0 ? 6 : 5);
    EXPECT_EQ(list.back(), place == 2 ? 6 : 7);
  }
}

TEST(InlineListTest, ACopyIsAListOfItsOwn) {
  const auto list = ListOf({5, 6});
  auto copy = list;
  copy.push_back(7);
  copy.erase(copy.begin());
  EXPECT_THAT(list, ElementsAre(5, 6));
  EXPECT_THAT(copy, ElementsAre(6, 7));
}

TEST(InlineListDeathTest, RefusesWhatIsNotThere) {
  auto full = ListOf({1, 2, 3});
  EXPECT_DEATH(full.push_back(4), "a list of at most 3 values is full");
  auto empty = ListOf({});
  EXPECT_DEATH(empty.erase(empty.end()), "nothing to erase there");
  EXPECT_DEATH(empty.back(), "an empty list has no last value");
}

}  // namespace
}  // namespace troupe
