// Floating-point operations of the model, per token. Multiply and add count as two; attention's
// causal half is not discounted; the input embedding costs nothing (PaLM's and nanoGPT's
// convention: 6 N + 12 L a d s). Pure.
#pragma once

#include <cstdint>

#include "actors/plan/model_config.h"

namespace troupe {

struct TokenFlops {
  double forward = 0;
  double backward_input = 0;
  double backward_weight = 0;
  double total() const { return forward + backward_input + backward_weight; }
  TokenFlops& operator+=(const TokenFlops& other);
};

// One decoder layer on sequences of `seq_len` tokens.
TokenFlops LayerFlops(const ModelConfig& config, int64_t seq_len);
// The head: its products, cross-entropy not counted. All three run in Forward, while a chunk's
// logits are there.
TokenFlops HeadFlops(const ModelConfig& config);
// What the embedding costs beside: its gradient's scatter, as one addition a channel.
TokenFlops EmbeddingFlops(const ModelConfig& config);
TokenFlops ModelFlops(const ModelConfig& config, int64_t seq_len);

}  // namespace troupe
