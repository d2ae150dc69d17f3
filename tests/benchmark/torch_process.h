// PyTorch as the peer of a whole step: what its scripts are told of the model.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "tests/benchmark/torch_python.h"
#include "tests/benchmark/trainee.h"

namespace troupe {

// The first line of the scripts. `weights` and `tokens`: their files.
inline nlohmann::json TorchRequest(const testing::SmallModel& model, const std::string& weights,
                                   const std::string& tokens) {
  const ModelConfig& c = model.config;
  nlohmann::json config{{"hidden_size", c.hidden_size},
                        {"intermediate_size", c.intermediate_size},
                        {"num_hidden_layers", c.num_hidden_layers},
                        {"num_attention_heads", c.num_attention_heads},
                        {"num_key_value_heads", c.num_key_value_heads},
                        {"head_dim", c.head_dim},
                        {"vocab_size", c.vocab_size},
                        {"rms_norm_eps", c.rms_norm_eps},
                        {"rope_theta", c.rope_theta},
                        {"rope_scaling", nullptr},
                        {"tie_word_embeddings", c.tie_word_embeddings}};
  nlohmann::json training{{"micro_batch_size", model.batch.micro_batch_size},
                          {"seq_len", model.batch.seq_len},
                          {"lr", kTraineeAdamW.lr},
                          {"betas", {kTraineeAdamW.beta1, kTraineeAdamW.beta2}},
                          {"eps", kTraineeAdamW.eps},
                          {"weight_decay", kTraineeAdamW.weight_decay},
                          {"grad_clip", kTraineeClip}};
  return {{"config", config},
          {"training", training},
          {"dtype", model.dtype == DType::kFloat32 ? "float32" : "bfloat16"},
          {"weights", weights},
          {"tokens", tokens}};
}

}  // namespace troupe
