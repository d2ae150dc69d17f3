// What a rank does, as its executor tells it. Pure values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "actors/schedule/action.h"

namespace troupe {

// A compute action, or else the phase.
struct RankActivity {
  int64_t step = 0;
  std::string_view phase{};  // a literal
  std::optional<Action> action{};
};
std::string InWords(const RankActivity& activity);  // "Forward of microbatch 3 on stage 2"

}  // namespace troupe
