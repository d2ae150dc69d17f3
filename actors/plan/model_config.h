// The model that a job trains: a Llama decoder in the words of Hugging Face's config.json. Made
// from an effective job (every key set); by whom the keys were set does not matter here. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "proto/job.pb.h"
#include "runtime/base/result.h"

namespace troupe {

// Llama 3's frequency scaling of the rotary embedding.
struct RopeScaling {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int32_t original_max_position_embeddings = 8192;
};

struct ModelConfig {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  std::optional<RopeScaling> rope_scaling{};
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  // For whoever generates with the exported model; training reads none of them.
  std::optional<int32_t> bos_token_id{};
  std::vector<int32_t> eos_token_id{};
  std::optional<int32_t> pad_token_id{};

  int64_t query_size() const { return num_attention_heads * head_dim; }
  int64_t key_value_size() const { return num_key_value_heads * head_dim; }
};

// Every error found, one sentence each, naming the field ("model.num_attention_heads"). Keys that
// the job leaves open get Hugging Face's defaults: num_key_value_heads = num_attention_heads,
// head_dim = hidden_size / num_attention_heads.
struct ModelConfigReading {
  ModelConfig config{};       // a size that cannot be is 0
  bool shapes_agree = false;  // the parameters' shapes follow from it
  std::vector<Error> errors{};
};
ModelConfigReading ReadModelConfig(const proto::Model& model);

// The first error, for those who were given an effective job.
Result<ModelConfig> ModelConfigOf(const proto::Model& model);

}  // namespace troupe
