#include "actors/plan/recompute.h"

namespace troupe {

std::string_view RecomputeName(Recompute recompute) {
  switch (recompute) {
    case Recompute::kNone:
      return "none";
    case Recompute::kAttention:
      return "attention";
    case Recompute::kFull:
      return "full";
  }
  return "";
}

Result<Recompute> RecomputeOf(const proto::Train& train) {
  if (!train.has_recompute()) return Recompute::kNone;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kAttention, Recompute::kFull}) {
    if (train.recompute() == RecomputeName(recompute)) return recompute;
  }
  constexpr size_t kShownBytes = 60;
  return MakeError(
      ErrorCode::kInvalidSpec,
      "train.recompute = {}: use none (everything is kept for the backward), attention "
      "(query, key, value and the attention's output are computed again) or full (all "
      "but a layer's input)",
      train.recompute().substr(0, kShownBytes));
}

}  // namespace troupe
