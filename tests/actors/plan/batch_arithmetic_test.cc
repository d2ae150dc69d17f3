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
