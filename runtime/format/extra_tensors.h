// Tensors of a folder that a model has no place for: one rule for the job's door and for the ranks,
// which may see another folder under the same path. Pure apart from the folder's files.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/format/safetensors.h"

namespace troupe {

inline constexpr std::string_view kHeadName = "lm_head.weight";

struct ExtraTensors {
  std::vector<std::string> names{};        // ascending
  std::vector<std::string> frequencies{};  // of the rotary embedding: they follow from its base
};

// `has_place` says so of a name. `tied_embedding` is that of the embedding where it is the head
// too, else empty: a head with the same bytes, as some exporters write it, is no extra tensor then.
ExtraTensors FindExtraTensors(const SafetensorsFolder& folder,
                              const std::function<bool(std::string_view)>& has_place,
                              std::string_view tied_embedding);

}  // namespace troupe
