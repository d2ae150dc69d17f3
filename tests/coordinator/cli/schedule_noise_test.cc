#include "coordinator/cli/schedule_noise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace troupe {
namespace {

using ::testing::HasSubstr;

std::string Refusal(const NoiseOptions& options) {
  const auto noise = NoiseOf(options);
  return noise.ok() ? "" : noise.error().message;
}

TEST(ScheduleNoiseTest, ReadsWhatTheFlagsSay) {
  const auto noise = NoiseOf({.jitter = 0.1, .hiccup = "0.03,5", .straggler = "3,1.5", .seed = 9});
  ASSERT_TRUE(noise.ok()) << noise.error().message;
  EXPECT_EQ(noise->sigma, 0.1);
  EXPECT_EQ(noise->hiccup_rate, 0.03);
  EXPECT_EQ(noise->hiccup_size, 5);
  EXPECT_EQ(noise->straggler_rank, 3);
  EXPECT_EQ(noise->straggler_factor, 1.5);
  EXPECT_EQ(noise->seed, 9U);
  EXPECT_GT(LongestBy(*noise), 6 * 1.5);
  EXPECT_FALSE(NoiseOf({})->any());
  EXPECT_EQ(LongestBy({}), 1);
}

TEST(ScheduleNoiseTest, EveryRefusalNamesItsFlag) {
  EXPECT_THAT(Refusal({.jitter = -1}), HasSubstr("--jitter -1: use 0 to 2"));
  EXPECT_EQ(Refusal({.hiccup = "0.1"}), "--hiccup 0.1: give two numbers, RATE,SIZE");
  EXPECT_THAT(Refusal({.hiccup = "2,1"}), HasSubstr("use a rate from 0 to 1"));
  EXPECT_EQ(Refusal({.straggler = "0,1,2"}), "--straggler 0,1,2: give two numbers, RANK,FACTOR");
  EXPECT_THAT(Refusal({.straggler = "-1,2"}), HasSubstr("use a rank and a factor"));
  EXPECT_THAT(Refusal({.straggler = "0.5,2"}), HasSubstr("use a rank and a factor"));
}

}  // namespace
}  // namespace troupe
