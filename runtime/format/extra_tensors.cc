#include "runtime/format/extra_tensors.h"

namespace troupe {
namespace {

bool AreSame(const SafetensorsFolder& folder, std::string_view name, std::string_view other) {
  const auto a = folder.Find(name);
  const auto b = folder.Find(other);
  if (!a || !b || a->entry->spec.dtype != b->entry->spec.dtype) return false;
  const auto same = HaveSameBytes(*a, *b);
  return same.ok() && *same;
}

}  // namespace

ExtraTensors FindExtraTensors(const SafetensorsFolder& folder,
                              const std::function<bool(std::string_view)>& has_place,
                              std::string_view tied_embedding) {
  ExtraTensors extra;
  for (std::string& name : folder.Names()) {
    if (has_place(name)) continue;
    if (name.ends_with(".rotary_emb.inv_freq")) {
      extra.frequencies.push_back(std::move(name));
    } else if (name != kHeadName || tied_embedding.empty() ||
               !AreSame(folder, name, tied_embedding)) {
      extra.names.push_back(std::move(name));
    }
  }
  return extra;
}

}  // namespace troupe
