#include "tests/benchmark/bench.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace troupe::bench {
namespace {

Row RowOf(const Comparison& what, std::vector<double> ours, std::vector<double> peer) {
  return {.what = what, .ours = std::move(ours), .peer = std::move(peer)};
}

TEST(BenchTest, TheRatioIsThatOfTheMediansAndAboveOneWhereOursIsBetter) {
  const Comparison less{.goal = 2};
  EXPECT_DOUBLE_EQ(*RowOf(less, {1, 2, 90}, {3, 5}).Ratio(), 2);
  EXPECT_EQ(RowOf(less, {1, 2, 90}, {3, 5}).Met(), true);
  EXPECT_EQ(RowOf(less, {1, 2.1, 90}, {3, 5}).Met(), false);
  const Comparison more{.goal = 2, .higher_is_better = true};
  EXPECT_DOUBLE_EQ(*RowOf(more, {8}, {4}).Ratio(), 2);
}

TEST(BenchTest, NothingIsMetWhereNothingIsAskedForOrMeasured) {
  EXPECT_EQ(RowOf({}, {1}, {1}).Met(), std::nullopt);
  EXPECT_EQ(RowOf({.goal = 1}, {1}, {}).Met(), std::nullopt);
  EXPECT_EQ(RowOf({.within = 0.1}, {}, {1}).Met(), std::nullopt);
  EXPECT_EQ(RowOf({.apart_max = 1}, {1}, {}).Met(), std::nullopt);
}

TEST(BenchTest, AgreementFailsOnEitherSide) {
  const Comparison what{.within = 0.05};
  EXPECT_EQ(RowOf(what, {100}, {95.1}).Met(), true);
  EXPECT_EQ(RowOf(what, {100}, {104.9}).Met(), true);
  EXPECT_EQ(RowOf(what, {100}, {94}).Met(), false);
  EXPECT_EQ(RowOf(what, {100}, {106}).Met(), false);
}

TEST(BenchTest, DifferencesAgreeInTheirUnitWhateverTheirSign) {
  const Comparison what{.apart_max = 1.5};
  EXPECT_EQ(RowOf(what, {-3, -2, -9}, {-4.5}).Met(), true);
  EXPECT_EQ(RowOf(what, {0.5}, {-1}).Met(), true);
  EXPECT_EQ(RowOf(what, {-3}, {-4.6}).Met(), false);
  EXPECT_EQ(RowOf(what, {-3}, {-1.4}).Met(), false);
  EXPECT_EQ(RowOf(what, {3}, {4}).Ratio(), std::nullopt);
}

TEST(BenchTest, LinesNameTheGoalInItsOwnForm) {
  EXPECT_NE(TableLine(RowOf({.goal = 5}, {1}, {6})).find(" 5.00x  yes "), std::string::npos);
  EXPECT_NE(TableLine(RowOf({.within = 0.05}, {1}, {2})).find(" ±5%  NO "), std::string::npos);
  const std::string line = TableLine(RowOf({.apart_max = 1.5}, {-4, -2}, {-3}));
  EXPECT_NE(line.find("-3.00 ±33%"), std::string::npos) << line;
  EXPECT_NE(line.find(" ±1.50  yes "), std::string::npos) << line;
}

TEST(BenchTest, ProgramsReadTheGoalByItsName) {
  const auto close = nlohmann::json::parse(RowJson(RowOf({.within = 0.05}, {100}, {99})));
  EXPECT_EQ(close["within"], 0.05);
  EXPECT_EQ(close["met"], true);
  EXPECT_TRUE(close["goal"].is_null());
  const auto apart = nlohmann::json::parse(RowJson(RowOf({.apart_max = 1.5}, {-3}, {-1})));
  EXPECT_EQ(apart["apart_max"], 1.5);
  EXPECT_EQ(apart["met"], false);
  EXPECT_TRUE(apart["ratio"].is_null());
  EXPECT_FALSE(nlohmann::json::parse(RowJson(RowOf({.goal = 1}, {1}, {1}))).contains("within"));
}

}  // namespace
}  // namespace troupe::bench
