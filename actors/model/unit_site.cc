#include "actors/model/unit_site.h"

#include <algorithm>

#include "actors/plan/unit_tensors.h"
#include "runtime/base/check.h"

namespace troupe {

AttentionShape ShapeOf(const LayerAttention& attention, const BatchArithmetic& batch) {
  const LayerAttention heads = HeadsOfRank(attention, batch.context);
  return {.num_sequences = batch.micro_batch_size,
          .query_len = TokensOfBlock(batch),
          .key_len = TokensOfBlock(batch),
          .num_heads = heads.num_heads,
          .num_kv_heads = heads.num_kv_heads,
          .head_dim = heads.head_dim};
}

TensorView TensorSlot::In(std::byte* base) const {
  if (place_.columns == 0) return {base + place_.offset, dtype_, {place_.rows}};
  return {base + place_.offset, dtype_, {place_.rows, place_.columns}};
}

TensorSlot UnitSite::SlotOf(const TensorPlace& place) const {
  switch (place.width) {
    case TensorWidth::kMaster:
      return {place, master};
    case TensorWidth::kInt32:
      return {place, DType::kInt32};
    case TensorWidth::kCompute:
    case TensorWidth::kNarrow:
      break;
  }
  return {place, dtype};
}

HalfSlot UnitSite::Half(std::string_view name) const {
  const auto slot = [&](const UnitPlaces& places) {
    return places.Has(name) ? std::optional(SlotOf(places.Of(name))) : std::nullopt;
  };
  CHECK(stash.Has(name) || workspace.Has(name), "the unit keeps no {}", name);
  return {slot(stash), slot(workspace)};
}

int UnitSite::NewAccumulator(int first_parameter, int num_parameters) const {
  const auto first = static_cast<size_t>(first_parameter);
  int64_t elements = 0;
  for (size_t i = first; i < first + static_cast<size_t>(num_parameters); ++i) {
    CHECK(gradient_elements[i] == gradient_elements[first] + elements, "neighbours lie apart");
    elements += spec.parameters[i].num_elements();
  }
  return gradients.AddAccumulator(gradient_elements[first], elements);
}

VectorWeight::VectorWeight(const UnitSite& site, std::string_view name)
    : weights_(&site.weights), gradients_(&site.gradients) {
  const auto& parameters = site.spec.parameters;
  const auto found = std::ranges::find(parameters, name, &ParameterSpec::name);
  CHECK(found != parameters.end() && found->one_dimensional, "the unit has no vector {}", name);
  place_ = static_cast<int>(found - parameters.begin());
  accumulator_ = site.NewAccumulator(place_);
}

}  // namespace troupe
