#include "actors/schedule/generators.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/validator.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST(Generators, OneForwardOneBackwardAsPublished) {
  const Schedule schedule = *Generate({.name = "1f1b", .num_ranks = 3, .num_microbatches = 4});
  EXPECT_EQ(ToCsv(schedule),
            "0F0,0F1,0F2,0B0,0F3,0B1,0B2,0B3\r\n"
            "1F0,1F1,1B0,1F2,1B1,1F3,1B2,1B3\r\n"
            "2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3\r\n");
}

TEST(Generators, FewerMicrobatchesThanRanks) {
  const Schedule schedule = *Generate({.name = "1f1b", .num_ranks = 4, .num_microbatches = 2});
  EXPECT_EQ(ToCsvRow(schedule.ranks[0]), "0F0,0F1,0B0,0B1");
  EXPECT_EQ(ToCsvRow(schedule.ranks[3]), "3F0,3B0,3F1,3B1");
}

TEST(Generators, GpipeRunsAllForwardsFirst) {
  const Schedule schedule = *Generate({.name = "gpipe", .num_ranks = 2, .num_microbatches = 3});
  EXPECT_EQ(ToCsvRow(schedule.ranks[1]), "1F0,1F1,1F2,1B0,1B1,1B2");
}

TEST(Generators, NamesAndAliases) {
  EXPECT_EQ(*CanonicalScheduleName("AFAB"), "gpipe");
  EXPECT_EQ(*CanonicalScheduleName("PipeDream_Flush"), "1f1b");
  const auto unknown = CanonicalScheduleName("2f2b");
  ASSERT_FALSE(unknown.ok());
  EXPECT_THAT(unknown.error().message, HasSubstr("use one of 1f1b"));
  for (const ScheduleInfo& known : KnownSchedules()) {
    EXPECT_TRUE(
        Generate({.name = std::string(known.name), .num_ranks = 2, .num_microbatches = 4}).ok());
    EXPECT_EQ(*CanonicalScheduleName(known.alias), known.name);
  }
}

TEST(Generators, RefuseWhatCannotBe) {
  EXPECT_FALSE(Generate({.num_ranks = 0}).ok());
  EXPECT_FALSE(Generate({.num_microbatches = 0}).ok());
  const auto chunks = Generate({.num_ranks = 2, .num_microbatches = 2, .chunks_per_rank = 2});
  ASSERT_FALSE(chunks.ok());
  EXPECT_THAT(chunks.error().message, HasSubstr("virtual_stages"));
}

TEST(Generators, ForwardOnlyCoversAnyPlacement) {
  const Schedule loop = GenerateForwardOnly(2, 4, 3);
  EXPECT_EQ(ToCsv(loop), "0F0,0F1,0F2,2F0,2F1,2F2\r\n1F0,1F1,1F2,3F0,3F1,3F2\r\n");
  const Schedule fold = GenerateForwardOnly(2, {Rank(0), Rank(1), Rank(1), Rank(0)}, 2);
  EXPECT_EQ(ToCsv(fold), "0F0,0F1,3F0,3F1\r\n1F0,1F1,2F0,2F1\r\n");
  for (const Schedule& schedule : {loop, fold}) {
    const auto report = Validate(schedule);
    ASSERT_TRUE(report.ok()) << report.error().message;
    EXPECT_EQ(report->peak_activations, (std::vector<double>{0.5, 0.5}));
  }
}

}  // namespace
}  // namespace troupe
