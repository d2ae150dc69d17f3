#include "actors/plan/job_shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;

proto::JobSpec Spec() {
  proto::JobSpec spec;
  spec.mutable_model()->set_hidden_size(64);
  spec.mutable_model()->set_intermediate_size(96);
  spec.mutable_model()->set_num_hidden_layers(4);
  spec.mutable_model()->set_num_attention_heads(4);
  spec.mutable_model()->set_vocab_size(100);
  spec.mutable_batch()->set_micro_batch_size(1);
  spec.mutable_batch()->set_global_batch_size(12);
  spec.mutable_batch()->set_seq_len(32);
  spec.mutable_parallelism()->set_dp(2);
  spec.mutable_parallelism()->set_pp(3);
  return spec;
}

TEST(JobShapeTest, IsModelMeshAndBatch) {
  const auto shape = JobShapeOf(Spec());
  ASSERT_TRUE(shape.ok()) << shape.error().message;
  EXPECT_EQ(shape->model.num_layers(), 4);
  EXPECT_EQ(shape->mesh.num_ranks(), 6);
  EXPECT_EQ(shape->batch.num_microbatches, 6) << "of a data-parallel rank";
}

TEST(JobShapeTest, TheFirstErrorIsItsOwn) {
  proto::JobSpec spec = Spec();
  spec.mutable_batch()->clear_seq_len();
  EXPECT_THAT(JobShapeOf(spec).error().message, HasSubstr("batch.seq_len"));
  spec.mutable_parallelism()->set_pp(0);
  EXPECT_THAT(JobShapeOf(spec).error().message, HasSubstr("parallelism.pp"));
  spec.mutable_model()->clear_hidden_size();
  EXPECT_THAT(JobShapeOf(spec).error().message, HasSubstr("model.hidden_size"));
}

TEST(JobShapeTest, NumbersAreFloat32WhereTheJobDoesNotSay) {
  EXPECT_EQ(WidthsOf(proto::Train())->compute_bytes, 4);
  proto::Train train;
  train.set_dtype("bfloat16");
  EXPECT_EQ(WidthsOf(train)->compute_bytes, 2);
}

}  // namespace
}  // namespace troupe
