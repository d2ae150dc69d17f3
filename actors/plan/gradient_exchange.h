// Which stages hold copies of the same weights, and so must agree on their gradient at the end of a
// step: the two uses of a tied embedding, and the two directions of a bidirectional pipeline. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

enum class SharedWeights : uint8_t {
  kReplica,  // all of the stage's: the other direction's stage holds the same layers
  kTied,     // the embedding, which is also the head
};

// The follower sends its gradient; the leader adds it to its own (leader + follower, one order on
// every layout) and sends the sum back. Either may be on the same rank.
struct GradientExchange {
  SharedWeights weights = SharedWeights::kTied;
  StageId leader{};
  StageId follower{};
};

// In the order in which they must happen: the directions' sums first, then each chain's two uses of
// a tied weight. Direction 0 leads direction 1, the embedding the head.
std::vector<GradientExchange> GradientExchangesOf(const Schedule& schedule, bool tied);

// The stage that votes, saves and exports the parameters of `stage`: itself, or its replica.
StageId OwnerOf(const Schedule& schedule, StageId stage);

}  // namespace troupe
