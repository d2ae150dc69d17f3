// The one parameter table of a job: initialising, sharding, checkpoints, export and the memory
// model read nothing else. Pure; immutable once built.
//   Order: units ascending, each in its spec's order; a parameter of several units (a tied head's)
//   stands with the first.
//   Shapes are (out, in) as in Hugging Face files; norms are one-dimensional (columns = 1).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "actors/plan/layer_spec.h"

namespace troupe {

class ParameterTable {
 public:
  explicit ParameterTable(ModelSpec model);

  const ModelSpec& model() const { return model_; }
  std::span<const ParameterSpec> parameters() const { return parameters_; }
  const ParameterSpec& operator[](int index) const {
    return parameters_[static_cast<size_t>(index)];
  }
  int size() const { return static_cast<int>(parameters_.size()); }
  int64_t num_elements() const { return num_elements_; }

  // Indices of the unit's parameters, in its spec's order.
  std::span<const int> OfUnit(int unit) const { return units_[static_cast<size_t>(unit)]; }
  // The unit that owns the parameter: the first that has it.
  int OwnerOf(int index) const { return owners_[static_cast<size_t>(index)]; }
  // With tied embeddings the head's matrix is the embedding: one parameter, two uses.
  int embedding_index() const { return OfUnit(model_.embedding_unit()).front(); }
  bool tied() const;
  // -1: no such parameter.
  int Find(std::string_view name) const;

 private:
  int Add(ParameterSpec spec, int unit);

  ModelSpec model_;
  std::vector<ParameterSpec> parameters_;
  std::vector<int> owners_;              // by index: a unit
  std::vector<std::vector<int>> units_;  // by unit: indices
  int64_t num_elements_ = 0;
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
