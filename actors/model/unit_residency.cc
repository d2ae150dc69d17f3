#include "actors/model/unit_residency.h"

#include <utility>

#include "runtime/base/check.h"

namespace troupe {

UnitResidency::UnitResidency(std::vector<Unit> units, const StageParameters& parameters)
    : parameters_(parameters) {
  for (Unit& unit : units) {
    units_.emplace_back().unit = std::move(unit);
  }
}

void UnitResidency::Begin(int position, std::vector<Wanted>& wanted) {
  Residence& of = units_[static_cast<size_t>(position)];
  if (of.unit.weights->state() == WeightsState::kAbsent) {
    of.unit.weights->Gather();
    for (const int row : of.unit.rows) {
      of.arrivals.push_back(std::make_unique<RowArrival>());
      wanted.push_back({row, parameters_.ComputeRow(parameters_.rows()[static_cast<size_t>(row)]),
                        of.arrivals.back().get()});
    }
  }
  if (of.unit.also >= 0) Begin(of.unit.also, wanted);
}

Task<Status> UnitResidency::Have(const Exec& exec, int position, std::span<const int> ahead) {
  CHECK(source_ != nullptr, "a pass before the stage knows where its weights come from");
  std::vector<Wanted> wanted;
  Begin(position, wanted);
  for (const int next : ahead) Begin(next, wanted);
  if (!wanted.empty()) co_await Ask(std::move(wanted));
  const int also = units_[static_cast<size_t>(position)].unit.also;
  if (also >= 0) CO_RETURN_IF_ERROR(co_await Arrive(exec, also));
  co_return co_await Arrive(exec, position);
}

Task<void> UnitResidency::GatherAhead(std::span<const int> ahead) {
  std::vector<Wanted> wanted;
  for (const int next : ahead) Begin(next, wanted);
  if (!wanted.empty()) co_await Ask(std::move(wanted));
}

Task<void> UnitResidency::Ask(std::vector<Wanted> wanted) {
  num_gathers_ += std::ssize(wanted);
  co_await OnScheduler([&] {
    for (const Wanted& w : wanted) source_->Gather(w.row, w.whole, *w.arrival);
  });
}

Task<Status> UnitResidency::Arrive(const Exec& exec, int position) {
  Residence& of = units_[static_cast<size_t>(position)];
  for (const auto& arrival : of.arrivals) {
    co_await arrival->here;
    CO_RETURN_IF_ERROR(arrival->status);
  }
  of.arrivals.clear();
  if (of.unit.weights->state() != WeightsState::kReady) of.unit.weights->Ready(exec);
  ++of.users;
  co_return Status{};
}

void UnitResidency::Release(int position, After after) {
  const int also = units_[static_cast<size_t>(position)].unit.also;
  Let(position, after);
  if (also >= 0) Let(also, after);
}

void UnitResidency::Let(int position, After after) {
  Residence& of = units_[static_cast<size_t>(position)];
  CHECK(of.users > 0, "{} is let go by a pass that does not have it", of.unit.weights->name());
  --of.users;
  if (after == After::kKeep) ++of.keepers;
  if (after == After::kKeptDrop) return EndKeeping(position);
  if (of.users == 0 && of.keepers == 0) of.unit.weights->Drop();
}

void UnitResidency::EndKeeping(int position) {
  Residence& of = units_[static_cast<size_t>(position)];
  CHECK(of.keepers > 0, "{} is kept by nobody", of.unit.weights->name());
  --of.keepers;
  if (of.users == 0 && of.keepers == 0) of.unit.weights->Drop();
}

}  // namespace troupe
