// What a rank does, as its executor tells it. Pure values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "actors/model/kv_ring.h"
#include "actors/schedule/action.h"

namespace troupe {

// A compute action, or else the phase.
struct RankActivity {
  int64_t step = 0;
  std::string_view phase{};  // a literal
  std::optional<Action> action{};
  std::optional<KvHop> hop{};  // that the action's attention has come to
};
// "Forward of microbatch 3 on stage 2, attention of layer 5, hop 1"
std::string InWords(const RankActivity& activity);

}  // namespace troupe
