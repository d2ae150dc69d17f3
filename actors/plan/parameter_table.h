// The one parameter table of a job: initialising, sharding, checkpoints, export and the memory
// model read nothing else. Pure; immutable once built.
//   Order: embedding, layers ascending (each in the order below), final norm, head.
//   Shapes are (out, in) as in Hugging Face files; norms are one-dimensional (columns = 1).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/plan/model_config.h"

namespace troupe {

enum class ParameterRole : uint8_t {
  kEmbedding,
  kInputNorm,
  kQuery,
  kKey,
  kValue,
  kAttentionOutput,
  kPostAttentionNorm,
  kGate,
  kUp,
  kDown,
  kFinalNorm,
  kHead,
};
// Of a layer, in table order: kInputNorm .. kDown.
inline constexpr int kParametersPerLayer = 9;

enum class ParameterInit : uint8_t { kNormal, kOnes };

struct ParameterSpec {
  std::string name{};  // Hugging Face's
  ParameterRole role = ParameterRole::kEmbedding;
  int64_t rows = 0;
  int64_t columns = 0;  // 1 for a norm's weight
  int layer = -1;       // -1: embedding, final norm, head
  bool one_dimensional = false;
  bool decay = true;  // weight decay applies (not to one-dimensional ones)
  ParameterInit init = ParameterInit::kNormal;
  int shard_axis = 0;  // the dimension that tensor parallel cuts; -1: replicated

  int64_t num_elements() const { return rows * columns; }
  std::vector<int64_t> shape() const;
};

class ParameterTable {
 public:
  explicit ParameterTable(const ModelConfig& config);

  std::span<const ParameterSpec> parameters() const { return parameters_; }
  const ParameterSpec& operator[](int index) const {
    return parameters_[static_cast<size_t>(index)];
  }
  int size() const { return static_cast<int>(parameters_.size()); }
  int64_t num_elements() const { return num_elements_; }

  // Indices. With tied embeddings head_index() == embedding_index(): one parameter, two uses.
  int embedding_index() const { return 0; }
  int layer_index(int layer, ParameterRole role) const;
  int final_norm_index() const { return final_norm_; }
  int head_index() const { return head_; }
  bool tied() const { return head_ == 0; }
  // -1: no such parameter.
  int Find(std::string_view name) const;

 private:
  std::vector<ParameterSpec> parameters_;
  int64_t num_elements_ = 0;
  int final_norm_ = 0;
  int head_ = 0;
};

// Initial value of one element: by (seed, name, element) alone, whatever the layout. kNormal has
// standard deviation `initializer_range`.
class ParameterInitializer {
 public:
  ParameterInitializer(uint64_t seed, const ParameterSpec& spec, double initializer_range);
  double operator()(int64_t element) const;

 private:
  uint64_t key_;
  bool ones_;
  double deviation_;
};

}  // namespace troupe
