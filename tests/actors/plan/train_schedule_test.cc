#include "actors/plan/train_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;

proto::Parallelism FromCsv(const std::string& csv) {
  proto::Parallelism spec;
  spec.set_schedule_actions(csv);
  return spec;
}

TEST(TrainSchedule, TakesTheRowsOfAFileAsTheRanksLists) {
  const auto train = TrainScheduleOf(FromCsv("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"), 2, 2);
  ASSERT_TRUE(train.ok()) << train.error().message;
  EXPECT_EQ(train->schedule.num_stages, 2);
  EXPECT_TRUE(train->ascending);
}

TEST(TrainSchedule, RefusesAFileOfAnotherSize) {
  const auto train = TrainScheduleOf(FromCsv("0F0,0B0\n1F0,1B0\n"), 2, 4);
  ASSERT_FALSE(train.ok());
  EXPECT_EQ(train.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(train.error().message, HasSubstr("is for 2 ranks and 1 microbatches"));
}

TEST(TrainSchedule, RefusesARankWithoutAStage) {
  const auto train = TrainScheduleOf(FromCsv("0F0,0B0\n\n1F0,1B0\n"), 3, 1);
  ASSERT_FALSE(train.ok());
  EXPECT_EQ(train.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(train.error().message, HasSubstr("row 2 gives rank 1 no stage"));
}

TEST(TrainSchedule, RefusesMoreForwardsThanAJobMayHave) {
  const auto train = TrainScheduleOf({}, 4, 1 << 30);
  ASSERT_FALSE(train.ok());
  EXPECT_THAT(train.error().message, HasSubstr("are too many; use at most"));
}

TEST(TrainSchedule, RefusesChunksAndPartsThatMakeTooManyActions) {
  proto::Parallelism spec;
  spec.set_schedule("interleaved-1f1b");
  spec.set_virtual_stages(1000);
  const auto chunks = TrainScheduleOf(spec, 2, 1024);
  ASSERT_FALSE(chunks.ok());
  EXPECT_THAT(chunks.error().message,
              HasSubstr("parallelism.virtual_stages = 1000, parallelism.weight_parts = 0: a step "
                        "of 1024 microbatches on 2 ranks has too many actions to plan"));
  spec.clear_virtual_stages();
  spec.set_schedule("zb-h1");
  spec.set_weight_parts(1 << 20);
  EXPECT_FALSE(TrainScheduleOf(spec, 2, 1024).ok());
}

TEST(TrainScheduleTest, CollectivesStandInTheListsOfAJob) {
  proto::Parallelism spec;
  spec.set_schedule_actions(
      "0UNSHARD,0F0,0B0,0RESHARD,0REDUCE_GRAD,0WAIT_REDUCE_GRAD\n1F0,1B0,1REDUCE_GRAD0\n");
  const auto train = TrainScheduleOf(spec, 2, 1);
  ASSERT_TRUE(train.ok()) << train.error().message;
  EXPECT_EQ(train->schedule.ranks[0].size(), 6u);
  EXPECT_TRUE(train->schedule.ListsSums(StageId(0)));
  EXPECT_FALSE(train->schedule.ListsSums(StageId(1)));
  spec.set_executor("free-run");
  EXPECT_THAT(TrainScheduleOf(spec, 2, 1).error().message,
              HasSubstr("parallelism.executor = free-run: row 1, cell 1 (0UNSHARD)"));
}

TEST(TrainScheduleTest, WhatNoJobRunsIsRefusedWithItsCell) {
  proto::Parallelism spec;
  const std::pair<const char*, const char*> cases[] = {
      {"0F0,0B0\n1F0,1B0,1RESHARD\n", "row 2, cell 3 (1RESHARD): the stage's parameters are not"},
      {"0F0\n1F0\n", "row 1, cell 1: there are Forwards only"},
  };
  for (const auto& [text, said] : cases) {
    spec.set_schedule_actions(text);
    const auto train = TrainScheduleOf(spec, 2, 1);
    ASSERT_FALSE(train.ok()) << text;
    EXPECT_EQ(train.error().code, ErrorCode::kInvalidSpec);
    EXPECT_EQ(train.error().message.find("parallelism.schedule_csv: " + std::string(said)), 0u)
        << train.error().message;
  }
}

}  // namespace
}  // namespace troupe
