#include "runtime/format/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

constexpr std::string_view kOlder = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048,
  "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
  "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "hidden_act": "silu",
  "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "tie_word_embeddings": true, "bos_token_id": 128000, "eos_token_id": [128001, 128009],
  "torch_dtype": "bfloat16", "some_future_key": {"a": [1]}})";

HfConfig Small() {
  HfConfig config;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.vocab_size = 256;
  return config;
}

TEST(HfConfigTest, ReadsTheOlderForm) {
  auto config = ParseHfConfigJson(kOlder, "/config.json");
  ASSERT_TRUE(config.ok()) << config.error().message;
  ASSERT_TRUE(CompleteHfConfig(*config, "/config.json").ok());
  EXPECT_EQ(config->hidden_size, 2048);
  EXPECT_EQ(config->num_key_value_heads, 8);
  EXPECT_EQ(config->rope_theta, 500000.0);
  ASSERT_TRUE(config->rope_scaling);
  EXPECT_EQ(config->rope_scaling->factor, 32.0);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_EQ(config->bos_token_id, 128000);
  EXPECT_THAT(config->eos_token_id, ElementsAre(128001, 128009));
}

TEST(HfConfigTest, ReadsTheNewerForm) {
  const auto config = ParseHfConfigJson(
      R"({"hidden_size":64,"eos_token_id":2,"rope_scaling":null,"rope_parameters":
          {"rope_type":"llama3","rope_theta":1000,"factor":2,"low_freq_factor":1,
           "high_freq_factor":4,"original_max_position_embeddings":64}})",
      "/c");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->rope_theta, 1000.0);
  EXPECT_EQ(config->rope_scaling->original_max_position_embeddings, 64);
  EXPECT_THAT(config->eos_token_id, ElementsAre(2));
  const auto plain =
      ParseHfConfigJson(R"({"rope_parameters":{"rope_type":"default","rope_theta":5.5}})", "/c");
  EXPECT_EQ(plain->rope_theta, 5.5);
  EXPECT_FALSE(plain->rope_scaling);
}

TEST(HfConfigTest, FillsWhatIsLeftOpen) {
  HfConfig config = Small();
  ASSERT_TRUE(CompleteHfConfig(config, "model").ok());
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
}

TEST(HfConfigTest, RefusesByKey) {
  const std::pair<std::function<void(HfConfig&)>, const char*> cases[] = {
      {[](HfConfig& c) { c.hidden_size = 66; }, "hidden_size 66 does not divide"},
      {[](HfConfig& c) { c.hidden_size = 0; }, "hidden_size is 0"},
      {[](HfConfig& c) { c.num_attention_heads = 0; }, "num_attention_heads is 0"},
      {[](HfConfig& c) { c.num_key_value_heads = 3; }, "num_key_value_heads 3"},
      {[](HfConfig& c) { c.num_key_value_heads = -1; }, "num_key_value_heads is -1"},
      {[](HfConfig& c) { c.head_dim = 15; }, "head_dim is 15"},
      {[](HfConfig& c) { c.head_dim = 1 << 24; }, "exceeds"},
      {[](HfConfig& c) { c.vocab_size = 1 << 30; }, "vocab_size is 1073741824"},
      {[](HfConfig& c) { c.num_hidden_layers = 0; }, "num_hidden_layers is 0"},
      {[](HfConfig& c) { c.rope_theta = 0; }, "rope_theta is 0"},
      {[](HfConfig& c) { c.rms_norm_eps = -1; }, "rms_norm_eps is -1"},
      {[](HfConfig& c) { c.hidden_act = "gelu"; }, "hidden_act is 'gelu'"},
      {[](HfConfig& c) { c.mlp_bias = true; }, "mlp_bias is true"},
      {[](HfConfig& c) { c.rope_scaling = RopeScalingLlama3{.high_freq_factor = 1.0}; },
       "high_freq_factor > low_freq_factor"},
  };
  for (const auto& [change, problem] : cases) {
    HfConfig config = Small();
    change(config);
    const Status status = CompleteHfConfig(config, "model");
    ASSERT_FALSE(status.ok()) << problem;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidSpec);
    EXPECT_THAT(status.error().message, HasSubstr(problem));
    EXPECT_THAT(status.error().message, ::testing::StartsWith("model: "));
  }
  const std::pair<const char*, const char*> texts[] = {
      {R"({"model_type":"gpt2"})", "model_type is 'gpt2'"},
      {R"({"rope_scaling":{"rope_type":"yarn","factor":2.0}})", "rope_type is 'yarn'"},
      {R"({"rope_scaling":{"type":"linear","factor":2.0}})", "rope_type is 'linear'"},
      {R"({"rope_scaling":{"rope_type":"llama3"}})", "the key factor is missing"},
      {R"({"rope_scaling":7})", "rope_scaling must be an object"},
      {R"({"hidden_size":"64"})", "hidden_size must be a whole number"},
      {R"({"hidden_size":4294967296})", "hidden_size must be a whole number"},
      {R"({"eos_token_id":[1,"x"]})", "eos_token_id must be"},
      {R"([])", "not an object"},
      {R"({)", "syntax error"},
  };
  for (const auto& [text, problem] : texts) {
    const auto config = ParseHfConfigJson(text, "/c");
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_THAT(config.error().message, HasSubstr(problem));
  }
}

TEST(HfConfigTest, KeysThatChangeTheComputationAreRefusedByName) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"sliding_window": 4096})", "sliding_window = 4096 needs attention within a window"},
      {R"({"sliding_window": 4096, "use_sliding_window": true})", "sliding_window = 4096"},
      {R"({"num_local_experts": 8})", "num_local_experts = 8 needs a mixture of experts"},
      {R"({"quantization_config": {"quant_method": "gptq"}})", "quantization_config = "},
      {R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor = 0.5"},
      {R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}})",
       "rope_parameters.partial_rotary_factor = 0.25"},
      {R"({"attention_dropout": 0.1})", "attention_dropout = 0.1 needs dropout"},
      {R"({"embedding_multiplier": 12})", "embedding_multiplier = 12"},
      {R"({"final_logit_softcapping": 30.0})", "final_logit_softcapping = 30.0"},
      {R"({"layer_types": ["full_attention", "sliding_attention"]})", "layer_types = "},
      {R"({"no_rope_layers": [1, 0]})", "no_rope_layers = "},
      {R"({"use_qk_norm": true})", "use_qk_norm = true"},
      {R"({"qkv_bias": true})", "qkv_bias = true needs layers with bias"},
  };
  for (const auto& [text, said] : wrong) {
    const auto config = ParseHfConfigJson(text, "/c");
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_EQ(config.error().code, ErrorCode::kInvalidSpec);
    EXPECT_THAT(config.error().message, HasSubstr(said));
  }
  // All of them at once.
  const auto both = ParseHfConfigJson(R"({"alibi": true, "num_experts": 4})", "/c");
  EXPECT_THAT(both.error().message,
              ::testing::AllOf(HasSubstr("alibi = true"), HasSubstr("num_experts = 4")));
  // What is off, or of no consequence, passes.
  for (const char* text :
       {R"({"sliding_window": null, "num_local_experts": 0, "quantization_config": null})",
        R"({"sliding_window": 4096, "use_sliding_window": false})",
        R"({"partial_rotary_factor": 1.0, "attention_dropout": 0.0, "residual_multiplier": 1})",
        R"({"layer_types": ["full_attention"], "no_rope_layers": [1, 1], "alibi": false})",
        R"({"pretraining_tp": 2, "use_cache": true, "cross_attention_layers": []})"}) {
    const auto config = ParseHfConfigJson(text, "/c");
    EXPECT_TRUE(config.ok()) << config.error().message;
  }
}

TEST(HfConfigTest, WritesBothFormsAndReadsThemBack) {
  const TemporaryFolder folder;
  auto config = *ParseHfConfigJson(kOlder, "/c");
  ASSERT_TRUE(CompleteHfConfig(config, "/c").ok());
  ASSERT_TRUE(WriteHfConfig(SystemFiles(), folder / "hf", config, "bfloat16").ok());
  const auto json =
      nlohmann::json::parse(*SystemFiles().ReadFile(folder / "hf/config.json", 1 << 20));
  EXPECT_EQ(json["rope_theta"], 500000.0);
  EXPECT_EQ(json["rope_scaling"]["rope_type"], "llama3");
  EXPECT_TRUE(json["rope_scaling"]["factor"].is_number_float());
  EXPECT_EQ(json["rope_parameters"]["rope_theta"], 500000.0);
  EXPECT_EQ(json["rope_parameters"]["factor"], 32.0);
  EXPECT_EQ(json["dtype"], "bfloat16");
  EXPECT_EQ(json["torch_dtype"], "bfloat16");
  const auto again = ReadHfConfig(SystemFiles(), folder / "hf/config.json");
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(HfConfigJson(*again, "bfloat16"), HfConfigJson(config, "bfloat16"));
  EXPECT_EQ(again->rope_scaling->high_freq_factor, 4.0);
  const auto generation =
      nlohmann::json::parse(*SystemFiles().ReadFile(folder / "hf/generation_config.json", 1 << 20));
  EXPECT_EQ(generation["eos_token_id"], nlohmann::json::array({128001, 128009}));
}

}  // namespace
}  // namespace troupe
