#include "actors/plan/cost_model.h"

namespace troupe {
namespace {

// S = Q K^T and P V, each 2 · query channels · seq_len a token; their backward needs twice that,
// all of it for the input's gradient.
TokenFlops AttentionFlops(const LayerAttention& attention, int64_t seq_len) {
  const auto query = static_cast<double>(attention.num_heads * attention.head_dim);
  const double forward = 4 * query * static_cast<double>(seq_len);
  return {forward, 2 * forward, 0};
}

}  // namespace

TokenFlops UnitFlops(const LayerSpec& unit, int64_t seq_len) {
  TokenFlops sum = unit.other_flops;
  for (const LayerProduct& product : unit.products) {
    const double each = 2 * static_cast<double>(product.in) * static_cast<double>(product.out);
    sum += product.chunked ? TokenFlops{3 * each, 0, 0} : TokenFlops{each, each, each};
  }
  if (unit.attention) sum += AttentionFlops(*unit.attention, seq_len);
  return sum;
}

TokenFlops ModelFlops(const ModelSpec& model, int64_t seq_len) {
  TokenFlops sum;
  for (int unit = 0; unit < model.num_units(); ++unit) sum += UnitFlops(model.unit(unit), seq_len);
  return sum;
}

}  // namespace troupe
