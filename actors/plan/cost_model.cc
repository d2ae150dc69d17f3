#include "actors/plan/cost_model.h"

namespace troupe {

TokenFlops& TokenFlops::operator+=(const TokenFlops& other) {
  forward += other.forward;
  backward_input += other.backward_input;
  backward_weight += other.backward_weight;
  return *this;
}

TokenFlops LayerFlops(const ModelConfig& c, int64_t seq_len) {
  const auto h = static_cast<double>(c.hidden_size);
  const double products =
      2 * h *
      (2.0 * static_cast<double>(c.query_size()) + 2.0 * static_cast<double>(c.key_value_size()) +
       3.0 * static_cast<double>(c.intermediate_size));
  // S = Q K^T and P V, each 2 · query_size · seq_len a token; their backward needs twice that, all
  // of it for the input's gradient.
  const double attention = 4 * static_cast<double>(c.query_size()) * static_cast<double>(seq_len);
  return {products + attention, products + 2 * attention, products};
}

TokenFlops HeadFlops(const ModelConfig& c) {
  const double product = 2 * static_cast<double>(c.hidden_size) * static_cast<double>(c.vocab_size);
  return {3 * product, 0, 0};
}

TokenFlops EmbeddingFlops(const ModelConfig& c) {
  return {0, 0, static_cast<double>(c.hidden_size)};
}

TokenFlops ModelFlops(const ModelConfig& config, int64_t seq_len) {
  TokenFlops sum = EmbeddingFlops(config);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) sum += LayerFlops(config, seq_len);
  sum += HeadFlops(config);
  return sum;
}

}  // namespace troupe
