// ActionChoices: one order for ranks that share sequences (cp), which run each pass of a round
// together. Where that order hangs on when inputs come (ForwardsJump), the first of them decides:
// it tells the others every pass (ReadsWeights) that it starts, and they start theirs as they are
// told. Elsewhere the lists are the order, and nothing is said. What runs no pass of its group, a
// weight gradient or a collective, each rank starts by itself. Thread: the executor's, which owns
// it.
//
//   C1. Choices come in the order in which they were made (R2 of remote.h).
//   C2. One that comes before its round starts is kept; only of the next round can there be any.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "actors/messages.h"
#include "actors/schedule/rank_progress.h"
#include "runtime/actor/remote.h"

namespace troupe {

using FollowerRef = RemoteRef<ActionChosen>;

class ActionChoices {
 public:
  struct Options {
    Rank self{};
    std::optional<Rank> follows{};         // the first of the group, where it is another rank
    std::vector<FollowerRef> followers{};  // the others, where it is this one
  };
  explicit ActionChoices(Options options);

  // A round starts; `progress` is that of its list. `trains`: no other round hangs on arrivals.
  Status Begin(int64_t round, bool trains, RankProgress& progress);
  // This rank starts an action.
  Status Started(const Action& action) const;
  // What the first one says. `progress`: of the round, while its list runs; null otherwise.
  Status Take(const ActionChosen& chosen, RankProgress* progress);

 private:
  Status Choose(const ActionChosen& chosen, RankProgress& progress) const;
  Error Unexpected(const ActionChosen& chosen) const;

  const Options options_;
  int64_t round_ = 0;
  bool tells_ = false;                 // of the round
  std::vector<ActionChosen> early_{};  // C2
};

}  // namespace troupe
