#include "actors/plan/learning_rate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

proto::JobSpec Spec(const std::string& name) {
  proto::JobSpec spec;
  spec.mutable_optimizer()->set_lr(1e-3);
  spec.mutable_train()->set_steps(110);
  spec.mutable_lr_scheduler()->set_name(name);
  spec.mutable_lr_scheduler()->set_warmup_steps(10);
  spec.mutable_lr_scheduler()->set_min_lr(1e-4);
  return spec;
}

TEST(LearningRate, WarmsUpLinearly) {
  const auto rate = *LearningRate::FromSpec(Spec("constant"));
  EXPECT_DOUBLE_EQ(rate.At(1), 1e-4);
  EXPECT_DOUBLE_EQ(rate.At(5), 5e-4);
  EXPECT_DOUBLE_EQ(rate.At(10), 1e-3);
  EXPECT_DOUBLE_EQ(rate.At(1000), 1e-3);
}

TEST(LearningRate, LinearEndsAtTheMinimum) {
  const auto rate = *LearningRate::FromSpec(Spec("linear"));
  EXPECT_DOUBLE_EQ(rate.At(60), 1e-3 + (1e-4 - 1e-3) * 0.5);
  EXPECT_DOUBLE_EQ(rate.At(110), 1e-4);
  EXPECT_DOUBLE_EQ(rate.At(500), 1e-4);
}

TEST(LearningRate, CosineIsHalfWayInTheMiddle) {
  const auto rate = *LearningRate::FromSpec(Spec("cosine"));
  EXPECT_NEAR(rate.At(60), (1e-3 + 1e-4) / 2, 1e-18);
  EXPECT_NEAR(rate.At(110), 1e-4, 1e-18);
  // A horizon given by itself does not move with the steps.
  auto spec = Spec("cosine");
  spec.mutable_lr_scheduler()->set_decay_steps(210);
  spec.mutable_train()->set_steps(50);
  EXPECT_NEAR(LearningRate::FromSpec(spec)->At(110), (1e-3 + 1e-4) / 2, 1e-18);
}

TEST(LearningRate, TheDecayOfARunShorterThanItsWarmUpEndsWithTheWarmUp) {
  auto spec = Spec("cosine");
  spec.mutable_train()->set_steps(4);
  const auto rate = LearningRate::FromSpec(spec);
  ASSERT_TRUE(rate.ok()) << rate.error().message;
  EXPECT_DOUBLE_EQ(rate->At(4), 4e-4);
  EXPECT_DOUBLE_EQ(rate->At(10), 1e-3);
  EXPECT_DOUBLE_EQ(rate->At(11), 1e-4);
}

TEST(LearningRate, RefusesByField) {
  EXPECT_THAT(LearningRate::FromSpec(Spec("step")).error().message,
              ::testing::HasSubstr("lr_scheduler.name = step"));
  auto spec = Spec("cosine");
  spec.mutable_lr_scheduler()->set_min_lr(1);
  EXPECT_THAT(LearningRate::FromSpec(spec).error().message,
              ::testing::HasSubstr("lr_scheduler.min_lr = 1"));
  spec = Spec("cosine");
  spec.mutable_optimizer()->set_lr(-1);
  EXPECT_THAT(LearningRate::FromSpec(spec).error().message,
              ::testing::HasSubstr("optimizer.lr = -1"));
  spec = Spec("linear");
  spec.mutable_lr_scheduler()->set_decay_steps(5);
  EXPECT_THAT(LearningRate::FromSpec(spec).error().message,
              ::testing::HasSubstr("lr_scheduler.decay_steps = 5"));
}

TEST(LearningRate, NamesEveryWrongField) {
  auto spec = Spec("step");
  spec.mutable_optimizer()->set_lr(0);
  spec.mutable_lr_scheduler()->set_min_lr(-1);
  spec.mutable_lr_scheduler()->set_warmup_steps(-1);
  std::vector<Error> errors;
  LearningRate::Read(spec, errors);
  EXPECT_EQ(errors.size(), 4u);
  // What follows from train.steps is not wrong where that one is.
  spec = Spec("cosine");
  spec.mutable_train()->clear_steps();
  errors.clear();
  LearningRate::Read(spec, errors);
  EXPECT_TRUE(errors.empty());
}

}  // namespace
}  // namespace troupe
