#include "actors/plan/batch_arithmetic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

proto::Batch Spec(int micro, int global, int seq_len) {
  proto::Batch batch;
  batch.set_micro_batch_size(micro);
  batch.set_global_batch_size(global);
  batch.set_seq_len(seq_len);
  return batch;
}

TEST(BatchArithmetic, DividesTheGlobalBatch) {
  const auto batch = BatchOf(Spec(4, 32, 128), 1);
  ASSERT_TRUE(batch.ok());
  EXPECT_EQ(batch->num_microbatches, 8);
  EXPECT_EQ(batch->gradient_groups, 1);
  EXPECT_EQ(Describe(*batch), "4 sequences x 8 microbatches = 32 sequences = 4,096 tokens a step");
  EXPECT_EQ(BatchOf(Spec(4, 32, 128), 2)->num_microbatches, 4);
  EXPECT_EQ(BatchOf(Spec(4, 32, 128), 2)->gradient_groups, 2);
}

TEST(BatchArithmetic, SuggestsWhatDivides) {
  const auto batch = BatchOf(Spec(4, 30, 128), 1);
  ASSERT_FALSE(batch.ok());
  EXPECT_THAT(batch.error().message, ::testing::HasSubstr("use 28 or 32"));
  EXPECT_TRUE(BatchOf(Spec(4, 28, 128), 1).ok());
  EXPECT_TRUE(BatchOf(Spec(4, 32, 128), 1).ok());
}

TEST(BatchArithmetic, NamesEveryMissingField) {
  EXPECT_EQ(ReadBatch(proto::Batch(), 1).errors.size(), 3u);
}

TEST(BatchArithmetic, GradientGroupsAreWholeMicrobatches) {
  auto spec = Spec(2, 12, 16);
  spec.set_gradient_groups(4);
  const auto batch = BatchOf(spec, 1);
  ASSERT_FALSE(batch.ok());
  EXPECT_THAT(batch.error().message, ::testing::HasSubstr("batch.gradient_groups = 4"));
  spec.set_gradient_groups(3);
  EXPECT_EQ(BatchOf(spec, 1)->gradient_groups, 3);
}

// Reduced every microbatch, the ranks' microbatches of one number are a group.
TEST(BatchArithmetic, GroupsFollowWhenGradientsAreReduced) {
  const auto batch = BatchOf(Spec(4, 32, 128), 2, GradReduce::kMicrobatch);
  ASSERT_TRUE(batch.ok());
  EXPECT_EQ(batch->num_microbatches, 4);
  EXPECT_EQ(batch->gradient_groups, 4);
  EXPECT_EQ(batch->NumberInStep(/*data_parallel_rank=*/1, /*microbatch=*/3), 7);
  EXPECT_EQ(batch->NumberInStep(1, 0), 1);
  EXPECT_EQ(BatchOf(Spec(4, 32, 128), 2)->NumberInStep(1, 0), 4);
  EXPECT_EQ(BatchOf(Spec(4, 32, 128), 1, GradReduce::kMicrobatch)->gradient_groups, 8);
}

// A rank has a part of each sequence; what a step sees stays.
TEST(BatchArithmetic, RanksThatShareSequencesHaveTheirPositions) {
  auto batch = *BatchOf(Spec(4, 32, 128), 2);
  batch.context.num_ranks = 4;
  EXPECT_EQ(batch.local_seq_len(), 32);
  EXPECT_EQ(batch.tokens_per_microbatch(), 4 * 32);
  EXPECT_EQ(batch.tokens_per_step(), 32 * 128);
  EXPECT_EQ(batch.weight_replicas(), 8);
  EXPECT_EQ(batch.microbatches_per_step(), 8) << "of two ranks";
  EXPECT_EQ(Describe(batch),
            "4 sequences x 4 microbatches x 2 data-parallel ranks = 32 sequences = 4,096 tokens a "
            "step, each sequence over 4 ranks");
}

TEST(BatchArithmetic, RanksWithTheSameWeightsAreThoseAlongDpAndCp) {
  proto::Parallelism keys;
  EXPECT_EQ(WeightReplicasOf(keys), 1);
  keys.set_cp(3);
  EXPECT_EQ(WeightReplicasOf(keys), 3);
  keys.set_dp(2);
  EXPECT_EQ(WeightReplicasOf(keys), 6);
  keys.set_dp(0);
  EXPECT_EQ(WeightReplicasOf(keys), 3) << "refused elsewhere";
  keys.set_zero_stage(2);
  EXPECT_TRUE(ReducesEachMicrobatch(keys));
}

TEST(BatchArithmetic, GradientsAreReducedAsTheKeyOrTheStageSays) {
  proto::Parallelism keys;
  for (const int stage : {0, 1, 2, 3}) {
    keys.clear_grad_reduce();
    keys.set_zero_stage(stage);
    EXPECT_EQ(*GradReduceOf(keys), stage < 2 ? GradReduce::kStep : GradReduce::kMicrobatch);
    keys.set_grad_reduce("microbatch");
    EXPECT_EQ(*GradReduceOf(keys), GradReduce::kMicrobatch);
    EXPECT_FALSE(ReducesEachMicrobatch(keys)) << "one rank reduces nothing";
    keys.set_grad_reduce("step");
    EXPECT_EQ(*GradReduceOf(keys), GradReduce::kStep);
  }
  keys.set_grad_reduce("often");
  EXPECT_THAT(GradReduceOf(keys).error().message,
              ::testing::HasSubstr("parallelism.grad_reduce = often: use step"));
}

}  // namespace
}  // namespace troupe
