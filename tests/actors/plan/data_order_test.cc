#include "actors/plan/data_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace troupe {
namespace {

std::vector<int64_t> Epoch(DataOrder& order, int64_t epoch) {
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < order.num_train_samples(); ++i) {
    samples.push_back(order.TrainSample(epoch * order.num_train_samples() + i));
  }
  return samples;
}

TEST(DataOrder, AnEpochVisitsEverySampleOnce) {
  auto order = *DataOrder::Make({.num_samples = 100, .val_fraction = 0.1, .seed = 7});
  EXPECT_EQ(order.num_train_samples(), 90);
  EXPECT_EQ(order.num_val_samples(), 10);
  const auto first = Epoch(order, 0);
  const auto second = Epoch(order, 1);
  EXPECT_NE(first, second);
  std::vector<int64_t> all(90);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_NE(first, all) << "not shuffled";
  EXPECT_TRUE(std::ranges::is_permutation(first, all));
  EXPECT_TRUE(std::ranges::is_permutation(second, all));
}

TEST(DataOrder, ANumberAloneDecidesTheSample) {
  auto a = *DataOrder::Make({.num_samples = 50, .seed = 7});
  auto b = *DataOrder::Make({.num_samples = 50, .seed = 7});
  EXPECT_EQ(a.TrainSample(499), b.TrainSample(499));
  EXPECT_EQ(a.TrainSample(3), b.TrainSample(3));
  auto other = *DataOrder::Make({.num_samples = 50, .seed = 8});
  EXPECT_NE(Epoch(a, 0), Epoch(other, 0));
}

TEST(DataOrder, PlainOrderRepeats) {
  auto order = *DataOrder::Make({.num_samples = 4, .shuffle = false});
  EXPECT_THAT(Epoch(order, 0), ::testing::ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Epoch(order, 5), ::testing::ElementsAre(0, 1, 2, 3));
}

TEST(DataOrder, ValidationIsTheTail) {
  const auto order = *DataOrder::Make({.num_samples = 10, .val_fraction = 0.3});
  EXPECT_EQ(order.ValSample(0), 7);
  EXPECT_EQ(order.ValSample(2), 9);
  EXPECT_EQ(order.ValSample(3), 7);
}

TEST(DataOrder, RefusesWhatLeavesNothing) {
  EXPECT_FALSE(DataOrder::Make({.num_samples = 0}).ok());
  EXPECT_FALSE(DataOrder::Make({.num_samples = 10, .val_fraction = 1.0}).ok());
  EXPECT_FALSE(DataOrder::Make({.num_samples = 10, .val_fraction = -0.1}).ok());
  EXPECT_TRUE(DataOrder::Make({.num_samples = 10, .val_fraction = 0.09}).ok());
  const auto order = DataOrder::Make({.num_samples = 10, .val_fraction = 0.09, .validates = true});
  ASSERT_FALSE(order.ok());
  EXPECT_EQ(order.error().message,
            "data.val_fraction = 0.09 of 10 samples leaves none to evaluate on: use 0.1 or more");
}

TEST(DataOrder, TheFractionThatItAsksForIsShortAndEnough) {
  for (int64_t samples = 2; samples < 20'000; samples += samples < 200 ? 1 : 37) {
    const auto none =
        DataOrder::Make({.num_samples = samples, .val_fraction = 1e-9, .validates = true});
    ASSERT_FALSE(none.ok());
    const std::string& said = none.error().message;
    const std::string number =
        said.substr(said.find("use ") + 4, said.find(" or more") - said.find("use ") - 4);
    EXPECT_LE(number.size(), 8u) << said;
    EXPECT_TRUE(DataOrder::Make(
                    {.num_samples = samples, .val_fraction = std::stod(number), .validates = true})
                    .ok())
        << said;
  }
}

}  // namespace
}  // namespace troupe
