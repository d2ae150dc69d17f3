#include "actors/plan/parameter_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/random.h"

namespace troupe {
namespace {

ParameterSpec Matrix(std::string name, ParameterRole role, int layer, int64_t rows, int64_t columns,
                     int shard_axis) {
  return {.name = std::move(name),
          .role = role,
          .rows = rows,
          .columns = columns,
          .layer = layer,
          .shard_axis = shard_axis};
}

ParameterSpec Norm(std::string name, ParameterRole role, int layer, int64_t channels) {
  return {.name = std::move(name),
          .role = role,
          .rows = channels,
          .columns = 1,
          .layer = layer,
          .one_dimensional = true,
          .decay = false,
          .init = ParameterInit::kOnes,
          .shard_axis = -1};
}

void AddLayer(const ModelConfig& c, int layer, std::vector<ParameterSpec>& table) {
  const auto name = [layer](std::string_view part) {
    return fmt::format("model.layers.{}.{}.weight", layer, part);
  };
  using Role = ParameterRole;
  const int64_t h = c.hidden_size;
  const int64_t f = c.intermediate_size;
  table.push_back(Norm(name("input_layernorm"), Role::kInputNorm, layer, h));
  table.push_back(Matrix(name("self_attn.q_proj"), Role::kQuery, layer, c.query_size(), h, 0));
  table.push_back(Matrix(name("self_attn.k_proj"), Role::kKey, layer, c.key_value_size(), h, 0));
  table.push_back(Matrix(name("self_attn.v_proj"), Role::kValue, layer, c.key_value_size(), h, 0));
  table.push_back(
      Matrix(name("self_attn.o_proj"), Role::kAttentionOutput, layer, h, c.query_size(), 1));
  table.push_back(Norm(name("post_attention_layernorm"), Role::kPostAttentionNorm, layer, h));
  table.push_back(Matrix(name("mlp.gate_proj"), Role::kGate, layer, f, h, 0));
  table.push_back(Matrix(name("mlp.up_proj"), Role::kUp, layer, f, h, 0));
  table.push_back(Matrix(name("mlp.down_proj"), Role::kDown, layer, h, f, 1));
}

}  // namespace

std::vector<int64_t> ParameterSpec::shape() const {
  if (one_dimensional) return {rows};
  return {rows, columns};
}

ParameterTable::ParameterTable(const ModelConfig& config) {
  parameters_.push_back(Matrix("model.embed_tokens.weight", ParameterRole::kEmbedding, -1,
                               config.vocab_size, config.hidden_size, 0));
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    AddLayer(config, layer, parameters_);
  }
  final_norm_ = size();
  parameters_.push_back(
      Norm("model.norm.weight", ParameterRole::kFinalNorm, -1, config.hidden_size));
  if (!config.tie_word_embeddings) {
    head_ = size();
    parameters_.push_back(Matrix("lm_head.weight", ParameterRole::kHead, -1, config.vocab_size,
                                 config.hidden_size, 0));
  }
  for (const ParameterSpec& spec : parameters_) num_elements_ += spec.num_elements();
}

int ParameterTable::layer_index(int layer, ParameterRole role) const {
  const int offset = static_cast<int>(role) - static_cast<int>(ParameterRole::kInputNorm);
  CHECK(offset >= 0 && offset < kParametersPerLayer);
  return 1 + layer * kParametersPerLayer + offset;
}

int ParameterTable::Find(std::string_view name) const {
  const auto found = std::ranges::find(parameters_, name, &ParameterSpec::name);
  return found == parameters_.end() ? -1 : static_cast<int>(found - parameters_.begin());
}

ParameterInitializer::ParameterInitializer(uint64_t seed, const ParameterSpec& spec,
                                           double initializer_range)
    : key_(RandomKey(seed, spec.name)),
      ones_(spec.init == ParameterInit::kOnes),
      deviation_(initializer_range) {}

double ParameterInitializer::operator()(int64_t element) const {
  return ones_ ? 1.0 : deviation_ * NormalAt(key_, static_cast<uint64_t>(element));
}

}  // namespace troupe
