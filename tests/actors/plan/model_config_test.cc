#include "actors/plan/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;

proto::Model Small() {
  proto::Model model;
  model.set_hidden_size(64);
  model.set_intermediate_size(160);
  model.set_num_hidden_layers(4);
  model.set_num_attention_heads(8);
  model.set_vocab_size(256);
  return model;
}

TEST(ModelConfig, FillsWhatHuggingFaceLeavesOpen) {
  const auto config = ModelConfigOf(Small());
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->num_key_value_heads, 8);
  EXPECT_EQ(config->head_dim, 8);
  EXPECT_FALSE(config->rope_scaling.has_value());
  EXPECT_FALSE(config->tie_word_embeddings);
}

TEST(ModelConfig, HeadDimMayDifferFromTheShare) {
  auto model = Small();
  model.set_num_attention_heads(6);
  model.set_num_key_value_heads(2);
  model.set_head_dim(32);
  const auto config = ModelConfigOf(model);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->query_size(), 192);
  EXPECT_EQ(config->key_value_size(), 64);
}

TEST(ModelConfig, TokenIdsAreOfTheVocabulary) {
  auto model = Small();
  model.set_bos_token_id(0);
  model.add_eos_token_id(255);
  const auto config = ModelConfigOf(model);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->bos_token_id, 0);
  EXPECT_THAT(config->eos_token_id, ::testing::ElementsAre(255));
  EXPECT_FALSE(config->pad_token_id);
  model.set_bos_token_id(-1);
  model.add_eos_token_id(256);
  model.set_pad_token_id(1000);
  const auto reading = ReadModelConfig(model);
  ASSERT_EQ(reading.errors.size(), 3u);
  EXPECT_EQ(reading.errors[0].message,
            "model.bos_token_id = -1: use a token of the vocabulary, 0 to model.vocab_size - 1 = "
            "255");
  EXPECT_THAT(reading.errors[1].message, HasSubstr("model.eos_token_id = 256"));
  EXPECT_THAT(reading.errors[2].message, HasSubstr("model.pad_token_id = 1000"));
}

TEST(ModelConfig, NamesEveryFieldThatDoesNotFit) {
  auto model = Small();
  model.set_num_attention_heads(6);
  model.set_num_key_value_heads(4);
  model.set_hidden_act("gelu");
  model.set_vocab_size(0);
  const auto reading = ReadModelConfig(model);
  std::string all;
  for (const Error& error : reading.errors) {
    EXPECT_EQ(error.code, ErrorCode::kInvalidSpec);
    all += error.message + "\n";
  }
  EXPECT_EQ(reading.errors.size(), 4u) << all;
  EXPECT_THAT(all, HasSubstr("model.vocab_size = 0"));
  EXPECT_THAT(all, HasSubstr("model.num_key_value_heads = 4 does not divide"));
  EXPECT_THAT(all,
              HasSubstr("model.num_attention_heads = 6 does not divide model.hidden_size = 64"));
  EXPECT_THAT(all, HasSubstr("model.hidden_act = gelu"));
}

TEST(ModelConfig, OddHeadsCannotTurn) {
  auto model = Small();
  model.set_head_dim(9);
  const auto config = ModelConfigOf(model);
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(config.error().message, HasSubstr("model.head_dim = 9 is odd"));
}

TEST(ModelConfig, ReadsLlama3Scaling) {
  auto model = Small();
  model.mutable_rope_scaling()->set_rope_type("llama3");
  model.mutable_rope_scaling()->set_factor(32);
  model.mutable_rope_scaling()->set_rope_theta(500000);
  const auto config = ModelConfigOf(model);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_DOUBLE_EQ(config->rope_scaling->factor, 32);
  EXPECT_DOUBLE_EQ(config->rope_scaling->high_freq_factor, 4);
  EXPECT_DOUBLE_EQ(config->rope_theta, 500000);
  model.mutable_rope_scaling()->set_rope_type("yarn");
  EXPECT_FALSE(ModelConfigOf(model).ok());
}

}  // namespace
}  // namespace troupe
