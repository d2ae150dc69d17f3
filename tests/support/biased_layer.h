// A kind of layer that only tests know: delta = W2 (W1 norm(x) + b1) + b2.
#pragma once

#include <string>

#include "actors/plan/layer_spec.h"

namespace troupe::testing {

inline constexpr std::string_view kBiasedKind = "biased";

inline LayerSpec BiasedLayerSpec(const ModelConfig& config) {
  const int64_t h = config.hidden_size, f = config.intermediate_size;
  const auto vector = [](std::string name, int64_t channels, int shard_axis) {
    return ParameterSpec{.name = std::move(name),
                         .rows = channels,
                         .columns = 1,
                         .one_dimensional = true,
                         .decay = false,
                         .shard_axis = shard_axis};
  };
  LayerSpec spec{.kind = kBiasedKind};
  spec.parameters = {vector("norm.weight", h, -1),
                     {.name = "fc.weight", .rows = f, .columns = h, .shard_axis = 0},
                     vector("fc.bias", f, 0),
                     {.name = "proj.weight", .rows = h, .columns = f, .shard_axis = 1},
                     vector("proj.bias", h, -1)};
  spec.parameters.front().init = ParameterInit::kOnes;
  spec.products = {{"fc", h, f, 1, 1}, {"proj", f, h, 3, 1}};
  spec.tensors = {{.name = "x", .columns = h},
                  {.name = "n", .columns = h},  // normed
                  {.name = "rstd", .width = TensorWidth::kMaster},
                  {.name = "inner", .columns = f},
                  {.name = "dy", .columns = h, .life = TensorLife::kHalf},
                  {.name = "dout", .columns = f, .life = TensorLife::kHalf},  // of inner
                  {.name = "delta", .columns = h, .life = TensorLife::kWorkspace},
                  {.name = "dx", .columns = h, .life = TensorLife::kWorkspace}};
  return spec;
}

// Layers of both kinds in turn, a decoder layer first.
inline ModelSpec MixedModel(const ModelConfig& config) {
  ModelSpec model(config);
  model.layer_kinds.push_back(BiasedLayerSpec(config));
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    model.layers[layer] = static_cast<int>(layer % 2);
  }
  return model;
}

}  // namespace troupe::testing
