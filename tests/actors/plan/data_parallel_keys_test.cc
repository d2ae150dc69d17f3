#include "actors/plan/data_parallel_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/generators.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(ReadZero, TakesWhatIsGivenAndElseTheDefaults) {
  std::vector<Error> errors;
  const ZeroSharding none = ReadZero({}, errors);
  EXPECT_EQ(none.stage, 0);
  EXPECT_EQ(none.prefetch, 1);
  EXPECT_TRUE(none.reshard_after_forward);
  proto::Parallelism keys;
  keys.set_zero_stage(3);
  keys.set_zero_prefetch(0);
  keys.set_reshard_after_forward(false);
  const ZeroSharding all = ReadZero(keys, errors);
  EXPECT_EQ(all.stage, 3);
  EXPECT_EQ(all.prefetch, 0);
  EXPECT_FALSE(all.reshard_after_forward);
  EXPECT_THAT(errors, IsEmpty());
}

TEST(ReadZero, RefusesEachKeyByName) {
  proto::Parallelism keys;
  keys.set_zero_stage(4);
  keys.set_zero_prefetch(-1);
  std::vector<Error> errors;
  (void)ReadZero(keys, errors);
  const auto says = [](const char* text) { return Field(&Error::message, HasSubstr(text)); };
  EXPECT_THAT(errors, ElementsAre(says("parallelism.zero_stage = 4: use 0 (every data-parallel"),
                                  says("parallelism.zero_prefetch = -1: use 0 to 1024 units")));
}

constexpr BatchArithmetic kEachMicrobatch{.num_microbatches = 4,
                                          .data_parallel = 2,
                                          .gradient_groups = 4,
                                          .grad_reduce = GradReduce::kMicrobatch};

proto::Parallelism KeysOf(const std::string& schedule) {
  proto::Parallelism keys;
  keys.set_pp(2);
  keys.set_dp(2);
  keys.set_zero_stage(2);
  keys.set_schedule(schedule);
  return keys;
}

std::string Refusal(const proto::Parallelism& keys, const BatchArithmetic& batch) {
  const auto train = TrainScheduleOf(keys, 2, batch.num_microbatches);
  CHECK(train.ok(), "{}", train.error().message);
  const Status agree = CheckGroups(keys, *train, batch);
  return agree.ok() ? "none" : agree.error().message;
}

// The executor and the weight gradients that nobody gave are what the reduction needs.
TEST(CheckGroups, ASchedulesDefaultsFollowAReductionOfEveryMicrobatch) {
  for (const ScheduleInfo& schedule : KnownSchedules()) {
    const proto::Parallelism keys = KeysOf(std::string(schedule.name));
    const std::string refusal = Refusal(keys, kEachMicrobatch);
    if (schedule.name == "dualpipe") {
      EXPECT_THAT(refusal, HasSubstr("parallelism.dp = 2: schedule dualpipe sums its two"));
    } else {
      EXPECT_EQ(refusal, "none") << schedule.name;
    }
  }
  auto free = KeysOf("dynamic");
  free.set_dp(1);
  EXPECT_EQ(TrainScheduleOf(free, 2, 4)->policy.mode, ExecutorMode::kFreeRun);
  free.set_dp(2);
  free.set_grad_reduce("step");
  EXPECT_EQ(TrainScheduleOf(free, 2, 4)->policy.mode, ExecutorMode::kFreeRun);
}

TEST(CheckGroups, AReductionOfEveryMicrobatchRefusesWhatIsGiven) {
  auto keys = KeysOf("zb-h1");
  keys.set_executor("guided");
  EXPECT_THAT(Refusal(keys, kEachMicrobatch),
              AllOf(HasSubstr("parallelism.executor = guided: with parallelism.dp = 2"),
                    HasSubstr("use strict, or grad_reduce: step")));
  keys.set_executor("strict");
  keys.set_weight_parts(2);
  EXPECT_THAT(Refusal(keys, kEachMicrobatch),
              AllOf(HasSubstr("parallelism.weight_parts = 2: weight gradients in parts"),
                    HasSubstr("use whole ones, or grad_reduce: step")));
  keys.clear_weight_parts();
  BatchArithmetic batch = kEachMicrobatch;
  batch.gradient_groups = 2;
  EXPECT_THAT(Refusal(keys, batch),
              AllOf(HasSubstr("batch.gradient_groups = 2: with parallelism.dp = 2"),
                    HasSubstr("each of a rank's 4 microbatches"), HasSubstr("use 4, or leave")));
}

TEST(CheckGroups, OneRankSumsAnyGroups) {
  BatchArithmetic batch = kEachMicrobatch;
  batch.data_parallel = 1;
  auto keys = KeysOf("zb-h1");
  keys.set_dp(1);
  keys.set_executor("guided");
  for (const int groups : {1, 2, 4}) {
    batch.gradient_groups = groups;
    EXPECT_EQ(Refusal(keys, batch), "none") << groups;
  }
}

}  // namespace
}  // namespace troupe
