#include "actors/exchange_progress.h"

#include <algorithm>

namespace troupe {

ExchangeProgress::ExchangeProgress(const std::vector<GradientExchange>& exchanges,
                                   const Schedule& schedule, Rank rank) {
  for (const GradientExchange& exchange : exchanges) {
    const Rank leader = schedule.RankOf(exchange.leader);
    const Rank follower = schedule.RankOf(exchange.follower);
    if (follower == rank) roles_.push_back({.exchange = exchange, .peer = leader});
    if (leader == rank) roles_.push_back({.exchange = exchange, .leads = true, .peer = follower});
  }
}

ExchangeProgress::Role* ExchangeProgress::Find(StageId stage, SharedWeights weights) {
  const auto found = std::ranges::find_if(roles_, [&](const Role& role) {
    return role.own() == stage && role.exchange.weights == weights;
  });
  return found == roles_.end() ? nullptr : &*found;
}

bool ExchangeProgress::MarkArrived(StageId stage, SharedWeights weights) {
  Role* role = Find(stage, weights);
  if (role == nullptr || role->arrived) return false;
  role->arrived = true;
  return true;
}

bool ExchangeProgress::MarkReady(StageId stage, SharedWeights weights) {
  Role* role = Find(stage, weights);
  if (role == nullptr || role->state != State::kTaking) return false;
  role->state = State::kReady;
  return true;
}

bool ExchangeProgress::MarkMerged(StageId stage, SharedWeights weights) {
  Role* role = Find(stage, weights);
  if (role == nullptr || role->state != State::kMerging) return false;
  role->state = role->leads ? State::kMerged : State::kDone;
  return true;
}

bool ExchangeProgress::MayStart(const Role& role) const {
  if (role.exchange.weights == SharedWeights::kReplica) return true;
  return std::ranges::all_of(roles_, [](const Role& other) {  // X1
    return other.exchange.weights != SharedWeights::kReplica || other.state == State::kDone;
  });
}

std::optional<ExchangeProgress::Step> ExchangeProgress::NextOf(Role& role) {
  Step step{.weights = role.exchange.weights, .stage = role.own(), .from = role.own()};
  const bool takes = role.state == (role.leads ? State::kMerged : State::kWaiting);
  const bool merges =
      role.arrived && role.state == (role.leads ? State::kWaiting : State::kHandedOver);
  if (takes) {
    role.state = State::kTaking;
    step.kind = StepKind::kTake;
    return step;
  }
  if (merges) {
    role.state = State::kMerging;
    step.kind = role.leads ? StepKind::kAdd : StepKind::kReplace;
    return step;
  }
  if (role.state == State::kReady) {
    role.state = role.leads ? State::kDone : State::kHandedOver;
    step.kind = StepKind::kHandOver;
    step.stage = role.other();
    step.to = role.peer;
    return step;
  }
  return std::nullopt;
}

std::optional<ExchangeProgress::Step> ExchangeProgress::Next() {
  for (Role& role : roles_) {
    if (!MayStart(role)) continue;
    if (auto step = NextOf(role)) return step;
  }
  return std::nullopt;
}

std::optional<Rank> ExchangeProgress::WaitsFor() const {
  std::optional<Rank> owes;
  for (const Role& role : roles_) {
    if (role.state == State::kTaking || role.state == State::kMerging) return std::nullopt;
    const bool sent = role.state == State::kDone || role.arrived || !MayStart(role);
    if (!sent && !owes) owes = role.peer;
  }
  return owes;
}

bool ExchangeProgress::Done() const {
  return std::ranges::all_of(roles_, [](const Role& role) { return role.state == State::kDone; });
}

}  // namespace troupe
