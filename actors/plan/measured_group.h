// The group that `troupe bench collectives` measures.
#pragma once

namespace troupe {

// Its members. Elements are whole numbers below 4, and bfloat16 has all those up to 256: sums of so
// many are exact.
inline constexpr int kMeasuredMembersMax = 64;

}  // namespace troupe
