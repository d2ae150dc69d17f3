// ExchangeProgress: how far one rank has got with the gradient exchanges at the end of a step, and
// what it does next. Pure: the executor tells what happened and performs what Next says.
//
//   follower: take --ready--> hand over … --sum arrived--> replace --merged--> done
//   leader:   … --gradient arrived--> add --merged--> take --ready--> hand over, done
//
//   X1. An exchange of tied weights starts when the rank's replicas are done:
//       a tied gradient is the sum of both directions' first.
//   X2. What arrives before its exchange has started is kept.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "actors/plan/gradient_exchange.h"

namespace troupe {

class ExchangeProgress {
 public:
  enum class StepKind : uint8_t {
    kTake,      // ask `stage` of this rank for its gradient; answer: MarkReady
    kAdd,       // let `stage` add what arrived for it; answer: MarkMerged
    kReplace,   // let `stage` take over what arrived for it; answer: MarkMerged
    kHandOver,  // what `from` gave goes to `stage` on rank `to`
  };
  struct Step {
    StepKind kind = StepKind::kTake;
    SharedWeights weights = SharedWeights::kTied;
    StageId stage{};
    StageId from{};
    Rank to{};
  };

  // Those of `exchanges` that have a stage on `rank`.
  ExchangeProgress(const std::vector<GradientExchange>& exchanges, const Schedule& schedule,
                   Rank rank);

  // False where no exchange of this rank expects it (now or later).
  [[nodiscard]] bool MarkArrived(StageId stage, SharedWeights weights);
  [[nodiscard]] bool MarkReady(StageId stage, SharedWeights weights);
  [[nodiscard]] bool MarkMerged(StageId stage, SharedWeights weights);

  std::optional<Step> Next();
  // The rank that owes this one a gradient and has not sent it; none while a stage of this rank is
  // at work, or all are done.
  std::optional<Rank> WaitsFor() const;
  bool Done() const;

 private:
  enum class State : uint8_t { kWaiting, kTaking, kReady, kHandedOver, kMerging, kMerged, kDone };
  struct Role {
    GradientExchange exchange{};
    bool leads = false;
    bool arrived = false;
    State state = State::kWaiting;
    Rank peer{};
    StageId own() const { return leads ? exchange.leader : exchange.follower; }
    StageId other() const { return leads ? exchange.follower : exchange.leader; }
  };
  Role* Find(StageId stage, SharedWeights weights);
  bool MayStart(const Role& role) const;
  static std::optional<Step> NextOf(Role& role);

  std::vector<Role> roles_{};
};

}  // namespace troupe
