// Hugging Face's config.json of a Llama, read in its older form (rope_theta, rope_scaling) and its
// newer one (rope_parameters), written in both, so that transformers 4 and 5 read the same model.
// Used by the coordinator (job door) and by ranks that save hf/. Pure apart from the FileSystem.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// Llama 3's frequency scaling: wavelengths up to original/high stay, beyond original/low are
// divided by factor, between them both are blended.
struct RopeScalingLlama3 {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int32_t original_max_position_embeddings = 8192;  // tokens
};

// Names are config.json's own.
struct HfConfig {
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_hidden_layers = 0;
  int32_t num_attention_heads = 0;
  int32_t num_key_value_heads = 0;  // 0 before CompleteHfConfig: as many as attention heads
  int32_t head_dim = 0;             // 0 before CompleteHfConfig: hidden_size / num_attention_heads
  int32_t vocab_size = 0;
  int32_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  std::optional<RopeScalingLlama3> rope_scaling;
  bool tie_word_embeddings = false;
  std::string hidden_act = "silu";
  bool attention_bias = false;
  bool mlp_bias = false;
  double initializer_range = 0.02;
  std::optional<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_id;
  std::optional<int32_t> pad_token_id;
};

// Types and single values. Keys that change what the model computes in a way that is not built are
// refused, all in one sentence, unless they say that it is off; others that are unknown pass. What
// another key must agree with is left to CompleteHfConfig, so that a job may override keys in
// between. `path` is for the messages.
Result<HfConfig> ParseHfConfigJson(std::string_view json, const std::string& path);

// Fills what the file leaves open (num_key_value_heads, head_dim) and checks that the keys agree:
// heads divide, head_dim is even, sizes are bounded. `place` starts every message: a path, or
// "model".
Status CompleteHfConfig(HfConfig& config, const std::string& place);

// Both of the above on a file.
Result<HfConfig> ReadHfConfig(FileSystem& files, const std::string& path);

// config.json and generation_config.json as text. `dtype` is "float32" or "bfloat16".
std::string HfConfigJson(const HfConfig& config, std::string_view dtype);
std::string HfGenerationConfigJson(const HfConfig& config);

// Writes both files into `folder`.
Status WriteHfConfig(FileSystem& files, const std::string& folder, const HfConfig& config,
                     std::string_view dtype);

}  // namespace troupe
