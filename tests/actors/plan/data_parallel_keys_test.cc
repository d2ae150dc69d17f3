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

auto Says(const char* text) { return Field(&Error::message, HasSubstr(text)); }

TEST(ReadZero, TakesWhatIsGivenAndElseTheDefaults) {
  std::vector<Error> errors;
  const ZeroSharding none = ReadZero({}, /*weight_replicas=*/4, errors);
  EXPECT_EQ(none.stage, 0);
  EXPECT_EQ(none.prefetch, 1);
  EXPECT_TRUE(none.reshard_after_forward);
  EXPECT_EQ(none.group, 0) << "all of them";
  EXPECT_EQ(none.persist_elements, 0);
  proto::Parallelism keys;
  keys.set_zero_stage(3);
  keys.set_zero_prefetch(0);
  keys.set_reshard_after_forward(false);
  keys.set_zero_group(2);
  keys.set_persist_elements(int64_t{1} << 40);
  const ZeroSharding all = ReadZero(keys, 4, errors);
  EXPECT_EQ(all.stage, 3);
  EXPECT_EQ(all.prefetch, 0);
  EXPECT_FALSE(all.reshard_after_forward);
  EXPECT_EQ(all.group, 2);
  EXPECT_EQ(all.persist_elements, int64_t{1} << 40);
  EXPECT_THAT(errors, IsEmpty());
}

TEST(ReadZero, RefusesEachKeyByName) {
  proto::Parallelism keys;
  keys.set_zero_stage(4);
  keys.set_zero_prefetch(-1);
  keys.set_zero_group(3);
  keys.set_persist_elements(-1);
  std::vector<Error> errors;
  (void)ReadZero(keys, 4, errors);
  EXPECT_THAT(
      errors,
      ElementsAre(Says("parallelism.zero_stage = 4: use 0 (every data-parallel"),
                  Says("parallelism.zero_prefetch = -1: use 0 to 1024 units"),
                  Says("parallelism.zero_group = 3 does not divide parallelism.dp = 4: shards are "
                       "repeated in whole groups; use 1, 2 or 4"),
                  Says("parallelism.persist_elements = -1: use 0 (everything is shared out)")));
}

TEST(ReadZero, AGroupIsJudgedAsFarAsTheRanksAreKnown) {
  const auto said = [](int group, int weight_replicas, int cp = 1) {
    proto::Parallelism keys;
    keys.set_cp(cp);
    keys.set_zero_group(group);
    std::vector<Error> errors;
    (void)ReadZero(keys, weight_replicas, errors);
    return errors.empty() ? std::string("none") : errors.front().message;
  };
  EXPECT_EQ(said(3, /*weight_replicas=*/0), "none");
  EXPECT_THAT(said(0, 0), HasSubstr("parallelism.zero_group = 0: use the number of"));
  EXPECT_THAT(said(-2, 4), HasSubstr("parallelism.zero_group = -2: use the number of"));
  EXPECT_THAT(said(2, 1), HasSubstr("parallelism.zero_group = 2 does not divide parallelism.dp = 1"
                                    ": shards are repeated in whole groups; use 1"));
  EXPECT_THAT(said(7, 720), HasSubstr("use 1, 2, 3, 4, 5, 6, 8, 9 or 720"));
  EXPECT_EQ(said(8, 720), "none");
  EXPECT_EQ(said(6, /*weight_replicas=*/6, /*cp=*/3), "none") << "of 2 x 3 ranks";
  EXPECT_THAT(said(4, 6, 3),
              HasSubstr("parallelism.zero_group = 4 does not divide parallelism.dp x "
                        "parallelism.cp = 6: shards are repeated in whole groups; "
                        "use 1, 2, 3 or 6"));
  EXPECT_THAT(said(0, 6, 3), HasSubstr("a divisor of parallelism.dp x parallelism.cp; or leave"));
}

TEST(ReadBucketBytes, IsAPositiveNumber) {
  proto::Parallelism keys;
  std::vector<Error> errors;
  EXPECT_EQ(ReadBucketBytes(keys, errors), kBucketBytes);
  for (const int64_t bytes : {int64_t{1}, int64_t{1} << 40}) {
    keys.set_bucket_bytes(bytes);
    EXPECT_EQ(ReadBucketBytes(keys, errors), bytes);
  }
  EXPECT_THAT(errors, IsEmpty());
  for (const int64_t bytes : {int64_t{0}, int64_t{-5}, (int64_t{1} << 40) + 1}) {
    keys.set_bucket_bytes(bytes);
    errors.clear();
    EXPECT_EQ(ReadBucketBytes(keys, errors), kBucketBytes);
    EXPECT_THAT(errors, ElementsAre(Says("use 1 to 1099511627776 bytes"))) << bytes;
  }
}

struct Sums {
  std::string reduction{};  // empty: not given
  std::string algorithm{};
  int zero_stage = 0;
};
std::pair<ReductionAlgorithm, std::vector<Error>> Read(const Sums& sums) {
  proto::JobSpec spec;
  spec.mutable_parallelism()->set_zero_stage(sums.zero_stage);
  if (!sums.reduction.empty()) spec.mutable_parallelism()->set_reduction(sums.reduction);
  if (!sums.algorithm.empty()) spec.mutable_data_parallel()->set_algorithm(sums.algorithm);
  std::vector<Error> errors;
  const ReductionAlgorithm read = ReadReduction(spec, errors);
  return {read, std::move(errors)};
}

TEST(ReadReduction, TakesBothSpellings) {
  for (const auto& [sums, wanted] :
       {std::pair(Sums{}, ReductionAlgorithm::kOrdered),
        std::pair(Sums{"ordered"}, ReductionAlgorithm::kOrdered),
        std::pair(Sums{"ring"}, ReductionAlgorithm::kRing),
        std::pair(Sums{"ring", "all-reduce", 3}, ReductionAlgorithm::kRing),
        std::pair(Sums{"", "all_reduce"}, ReductionAlgorithm::kOrdered),
        std::pair(Sums{"", "reduce_broadcast"}, ReductionAlgorithm::kChain),
        std::pair(Sums{"ordered", "reduce-broadcast"}, ReductionAlgorithm::kChain)}) {
    const auto [read, errors] = Read(sums);
    EXPECT_EQ(read, wanted) << sums.reduction << " " << sums.algorithm;
    EXPECT_THAT(errors, IsEmpty());
  }
}

TEST(ReadReduction, RefusesWordsAndWhatDoesNotGoTogether) {
  EXPECT_THAT(Read({"tree", "gossip"}).second,
              ElementsAre(Says("parallelism.reduction = tree: use ordered (sums have the bits of "
                               "one worker) or ring"),
                          Says("data_parallel.algorithm = gossip: use all_reduce, or "
                               "reduce_broadcast")));
  EXPECT_THAT(Read({"ring", "reduce_broadcast", 2}).second,
              ElementsAre(Says("data_parallel.algorithm = reduce_broadcast brings whole gradients "
                               "to every rank, and parallelism.zero_stage = 2 shares them out: use "
                               "all_reduce, or zero_stage: 0"),
                          Says("data_parallel.algorithm = reduce_broadcast adds along a chain of "
                               "ranks, and parallelism.reduction = ring along rings: use "
                               "all_reduce, or reduction: ordered")));
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
      EXPECT_THAT(refusal, HasSubstr("parallelism.grad_reduce = microbatch: with parallelism.dp = "
                                     "2 the two directions of schedule dualpipe are added up once "
                                     "a step; use step"));
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

// Each direction of each data-parallel rank sums a group.
TEST(CheckGroups, TwoDirectionsOfDataParallelRanksSumOnceAStep) {
  BatchArithmetic batch = kEachMicrobatch;
  batch.grad_reduce = GradReduce::kStep;
  batch.gradient_groups = 4;
  auto keys = KeysOf("dualpipe");
  keys.set_grad_reduce("step");
  EXPECT_EQ(Refusal(keys, batch), "none");
  for (const int groups : {1, 2, 8}) {
    batch.gradient_groups = groups;
    EXPECT_THAT(Refusal(keys, batch),
                HasSubstr("with parallelism.dp = 2 each direction of schedule dualpipe sums one "
                          "group on every rank; use 4, or leave it out"));
  }
  // A list whose middle rank would add both directions of one stage itself.
  TrainSchedule odd{.schedule = {.num_ranks = 3, .num_stages = 6, .num_directions = 2}};
  odd.schedule.name = "csv";
  for (const int rank : {0, 1, 2, 2, 1, 0}) odd.schedule.placement.emplace_back(rank);
  const Status refused = CheckGroups(keys, odd, batch);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message,
              HasSubstr("parallelism.dp = 2: schedule csv has both directions of stage 1 on one "
                        "rank; where others have the same weights they lie on two: use an even "
                        "parallelism.pp"));
}

// Their parts of one microbatch are of one group: only ranks along dp have groups of their own.
TEST(CheckGroups, RanksThatShareSequencesSumOneGroup) {
  BatchArithmetic batch = kEachMicrobatch;
  batch.data_parallel = 1;
  batch.context.num_ranks = 3;
  auto keys = KeysOf("1f1b");
  keys.set_dp(1);
  keys.set_cp(3);
  EXPECT_EQ(Refusal(keys, batch), "none");
  batch.gradient_groups = 2;
  EXPECT_THAT(Refusal(keys, batch),
              AllOf(HasSubstr("batch.gradient_groups = 2: with parallelism.cp = 3 and"),
                    HasSubstr("use 4, or leave it out")));
  batch.grad_reduce = GradReduce::kStep;
  keys.set_grad_reduce("step");
  EXPECT_THAT(Refusal(keys, batch), HasSubstr("batch.gradient_groups = 2: with parallelism.cp = 3 "
                                              "every rank sums one group; use 1"));
  batch.gradient_groups = 1;
  EXPECT_EQ(Refusal(keys, batch), "none");
  batch.data_parallel = 2;
  EXPECT_THAT(Refusal(keys, batch),
              HasSubstr("with parallelism.dp x parallelism.cp = 2 x 3 every rank sums one group; "
                        "use 2"));
  batch.gradient_groups = 2;
  EXPECT_EQ(Refusal(keys, batch), "none");
  keys = KeysOf("dualpipe");
  keys.set_grad_reduce("step");
  EXPECT_THAT(Refusal(keys, batch), HasSubstr("each direction of schedule dualpipe sums one group "
                                              "on every rank; use 4"));
  batch.gradient_groups = 4;
  EXPECT_EQ(Refusal(keys, batch), "none");
}

TEST(RingSums, FollowTheRanksWithTheSameWeights) {
  proto::JobSpec one;
  one.mutable_parallelism()->set_dp(4);
  one.mutable_parallelism()->set_reduction("ring");
  proto::JobSpec other = one;
  EXPECT_FALSE(RingSumsDiffer(one, other));
  other.mutable_parallelism()->set_cp(2);
  EXPECT_TRUE(RingSumsDiffer(one, other));
  other.mutable_parallelism()->set_dp(2);
  EXPECT_FALSE(RingSumsDiffer(one, other)) << "as many ranks";
  one.mutable_parallelism()->set_dp(1);
  EXPECT_TRUE(RingSumsDiffer(one, other)) << "one rank alone sums along no ring";
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
