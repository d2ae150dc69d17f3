#include "actors/rank_activity.h"

#include <fmt/format.h>

namespace troupe {

std::string InWords(const RankActivity& activity) {
  if (!activity.action) return std::string(activity.phase);
  return fmt::format("{} of microbatch {} on stage {}", KindName(activity.action->kind),
                     activity.action->microbatch, activity.action->stage);
}

}  // namespace troupe
