#include "actors/plan/parameter_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/base/random.h"

namespace troupe {

ParameterTable::ParameterTable(ModelSpec model) : model_(std::move(model)) {
  for (int unit = 0; unit < model_.num_units(); ++unit) {
    const int layer = model_.LayerOf(unit);
    std::vector<int>& indices = units_.emplace_back();
    for (ParameterSpec spec : model_.unit(unit).parameters) {
      spec.layer = layer;
      if (layer >= 0) spec.name = fmt::format("model.layers.{}.{}", layer, spec.name);
      indices.push_back(Add(std::move(spec), unit));
    }
  }
}

int ParameterTable::Add(ParameterSpec spec, int unit) {
  // Only the head may share: with the embedding.
  const int shared = unit == model_.head_unit() ? Find(spec.name) : -1;
  if (shared >= 0) return shared;
  num_elements_ += spec.num_elements();
  parameters_.push_back(std::move(spec));
  owners_.push_back(unit);
  return size() - 1;
}

bool ParameterTable::tied() const {
  return std::ranges::find(OfUnit(model_.head_unit()), embedding_index()) !=
         OfUnit(model_.head_unit()).end();
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
