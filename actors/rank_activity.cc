#include "actors/rank_activity.h"

#include <fmt/format.h>

namespace troupe {

std::string InWords(const RankActivity& activity) {
  if (!activity.action) return std::string(activity.phase);
  std::string words =
      fmt::format("{} of microbatch {} on stage {}", KindName(activity.action->kind),
                  activity.action->microbatch, activity.action->stage);
  if (activity.hop) {
    words += fmt::format(", attention of layer {}, hop {}", activity.hop->layer, activity.hop->hop);
  }
  return words;
}

}  // namespace troupe
