// StageModel where weights are gathered for each pass (ZeRO-3).
#include <map>
#include <utility>

#include "actors/model/stage_model.h"

namespace troupe {

void StageModel::BuildResidency() {
  if (!gathers()) return;
  std::vector<UnitResidency::Unit> units(unit_weights_.size());
  const auto rows = parameters_.rows();
  std::map<int, size_t> position_of;  // of the unit that keeps a parameter
  for (size_t position = 0; position < units.size(); ++position) {
    units[position].weights = unit_weights_[position].get();
    for (const int index : table_.OfUnit(units_[position])) {
      const auto [kept, is_new] = position_of.emplace(index, position);
      if (!is_new) units[position].also = static_cast<int>(kept->second);
    }
  }
  for (size_t row = 0; row < rows.size(); ++row) {
    if (rows[row].persists) continue;
    units[position_of.at(rows[row].parameters.front())].rows.push_back(static_cast<int>(row));
  }
  residency_.emplace(std::move(units), parameters_);
}

void StageModel::AtPass(int32_t microbatch, const NextPass& next) {
  pass_microbatch_ = microbatch;
  next_ = next;
}

WeightPass StageModel::ThisPass(PassDirection direction) const {
  return {.direction = direction, .step = step_, .microbatch = pass_microbatch_};
}

// A backward reads no weights of the embedding and none of the head, which has kept what it needs.
std::vector<int> StageModel::ReadAfter(int position, PassDirection direction, int most) const {
  const bool forward = direction == PassDirection::kForward;
  const int step = forward ? 1 : -1;
  const int first = forward ? 0 : static_cast<int>(first_layer());
  const int last = static_cast<int>(forward ? units_.size() : head_position()) - 1;
  std::vector<int> positions;
  for (int next = position + step; next >= first && next <= last && std::ssize(positions) < most;
       next += step) {
    positions.push_back(next);
  }
  return positions;
}

// What the pass reads next comes before what the pass after it reads, and this unit before both.
Task<Status> StageModel::HaveUnit(size_t position, PassDirection direction) {
  co_await GatherUnits(position, direction);
  co_return co_await residency_->Have(exec_, static_cast<int>(position));
}

Task<void> StageModel::GatherUnits(size_t position, PassDirection direction) {
  const int prefetch = options_.shape.zero.prefetch;
  std::vector<int> wanted = ReadAfter(static_cast<int>(position), direction, prefetch);
  const int left = prefetch - static_cast<int>(wanted.size());
  wanted.insert(wanted.begin(), static_cast<int>(position));
  co_await residency_->Gather(wanted, ThisPass(direction));
  co_await GatherForNext(left);
}

Task<void> StageModel::GatherForNext(int most) {
  if (next_.stage == nullptr || most <= 0) co_return;
  StageModel& stage = *next_.stage;
  const PassDirection direction = next_.pass.direction;
  const int before =
      direction == PassDirection::kForward ? -1 : static_cast<int>(stage.head_position());
  const std::vector<int> wanted = stage.ReadAfter(before, direction, most);
  co_await stage.residency_->Gather(wanted, next_.pass);
}

Task<void> StageModel::ReleaseLast(size_t position, UnitResidency::After after) {
  residency_->Release(static_cast<int>(position), after);
  const int prefetch = options_.shape.zero.prefetch;
  if (prefetch > 0) co_await GatherForNext(prefetch + 1);
}

Task<Status> StageModel::Unshard() {
  WeightPass all = ThisPass(PassDirection::kForward);
  all.microbatch = -1;
  if (residency_) co_await residency_->KeepAll(all);
  co_return Status{};
}

Task<Status> StageModel::Reshard() {
  if (!residency_) co_return Status{};
  co_return co_await residency_->EndKeepingAll();
}

}  // namespace troupe
