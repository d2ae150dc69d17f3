#include "actors/schedule/collective_lists.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/activations.h"
#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

std::string Lowered(const char* csv, int num_stages) {
  const auto lowered = WithCollectives(*ParseCsv(csv, "lists"), num_stages);
  return lowered.ok() ? ToCsv(*lowered) : lowered.error().message;
}

TEST(CollectiveLists, GatherTheNextStagesAndDropTheOthers) {
  EXPECT_EQ(Lowered("0F0,1F0,2F0,2B0,1B0,0B0\n", 2),
            "0UNSHARD,1UNSHARD,0F0,0RESHARD,2UNSHARD,1F0,2F0,2B0,2REDUCE_GRAD,2RESHARD,0UNSHARD,"
            "1B0,1REDUCE_GRAD,1RESHARD,0B0,0REDUCE_GRAD,0RESHARD\r\n");
  EXPECT_EQ(Lowered("0F0,1F0,1B0,0B0\n", 8),
            "0UNSHARD,1UNSHARD,0F0,1F0,1B0,1REDUCE_GRAD,1RESHARD,0B0,0REDUCE_GRAD,0RESHARD\r\n");
}

TEST(CollectiveLists, ReduceAfterTheLastPartOfTheLastWeightGradient) {
  EXPECT_EQ(Lowered("0F0,0F1,0I0,0I1,0W0,0W1/1of2,0W1/2of2\n", 1),
            "0UNSHARD,0F0,0F1,0I0,0I1,0W0,0W1/1of2,0W1/2of2,0REDUCE_GRAD,0RESHARD\r\n");
}

TEST(CollectiveLists, APairNeedsAllItsStagesAtOnce) {
  const char kPair[] = "0F0,1F0,(0F1;1B0)OVERLAP_F_B,0B0,1F1,1B1,0B1\n";
  EXPECT_THAT(Lowered(kPair, 2), HasSubstr("1F0,(0F1;1B0)OVERLAP_F_B,0B0"));
  EXPECT_THAT(Lowered(kPair, 1),
              HasSubstr("row 1, cell 3 (0F1): its pair needs the parameters of 2 stages at once"));
}

TEST(CollectiveLists, EveryScheduleIsValidWithThemAndHoldsNoMoreThanAsked) {
  for (const ScheduleInfo& known : KnownSchedules()) {
    const Schedule plain =
        *Generate({.name = std::string(known.name), .num_ranks = 4, .num_microbatches = 12});
    for (const int num_stages : {2, 3}) {
      const auto lowered = WithCollectives(plain, num_stages);
      ASSERT_TRUE(lowered.ok()) << lowered.error().message;
      const auto report = Validate(*lowered);
      ASSERT_TRUE(report.ok()) << known.name << ": " << report.error().message;
      const std::vector<int64_t> one(static_cast<size_t>(plain.num_stages), 1);
      for (PipelineRank rank{}; rank.value < 4; rank = rank.Next()) {
        // A pair that begins among the next stages is whole among them.
        EXPECT_LE(PeakGathered(*lowered, rank, one), num_stages + 1) << known.name;
        EXPECT_GE(PeakGathered(*lowered, rank, one), 1) << known.name;
      }
      Schedule back = *lowered;
      for (std::vector<Action>& actions : back.ranks) {
        std::erase_if(actions, [](const Action& action) { return IsCollective(action.kind); });
      }
      EXPECT_EQ(back.ranks, plain.ranks) << known.name;
    }
  }
}

}  // namespace
}  // namespace troupe
