#include "actors/model/unit_residency.h"

#include <numeric>
#include <utility>

#include "runtime/base/check.h"

namespace troupe {

UnitResidency::UnitResidency(std::vector<Unit> units, const StageParameters& parameters)
    : parameters_(parameters) {
  for (Unit& unit : units) {
    units_.emplace_back().unit = std::move(unit);
  }
}

void UnitResidency::Begin(int position, const WeightPass& pass, std::vector<Wanted>& wanted) {
  Residence& of = At(position);
  if (of.unit.weights->state() == WeightsState::kAbsent) {
    of.unit.weights->Gather();
    for (const int row : of.unit.rows) {
      RowArrival& arrival = *of.arrivals.emplace_back(std::make_unique<RowArrival>());
      arrival.pass = pass;
      wanted.push_back(
          {row, parameters_.ComputeRow(parameters_.rows()[static_cast<size_t>(row)]), &arrival});
    }
  }
  if (of.unit.also >= 0) Begin(of.unit.also, pass, wanted);
}

Task<void> UnitResidency::Gather(std::span<const int> positions, WeightPass pass) {
  CHECK(source_ != nullptr, "a pass before the stage knows where its weights come from");
  std::vector<Wanted> wanted;
  for (const int position : positions) Begin(position, pass, wanted);
  if (wanted.empty()) co_return;
  num_gathers_ += std::ssize(wanted);
  co_await OnScheduler([&] {
    for (const Wanted& w : wanted) source_->Gather(w.row, w.whole, *w.arrival);
  });
}

Task<Status> UnitResidency::Have(const Exec& exec, int position) {
  const int also = At(position).unit.also;
  if (also >= 0) CO_RETURN_IF_ERROR(co_await Arrive(exec, also));
  co_return co_await Arrive(exec, position);
}

Task<Status> UnitResidency::Arrive(const Exec& exec, int position) {
  Residence& of = At(position);
  CHECK(of.unit.weights->state() != WeightsState::kAbsent, "a pass has {}, which nobody gathers",
        of.unit.weights->name());
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
  const int also = At(position).unit.also;
  Let(position, after);
  if (also >= 0) Let(also, after);
}

void UnitResidency::Let(int position, After after) {
  Residence& of = At(position);
  CHECK(of.users > 0, "{} is let go by a pass that does not have it", of.unit.weights->name());
  --of.users;
  if (after == After::kKeep) ++of.keepers;
  if (after == After::kKeptDrop) return EndOneKeeping(position);
  DropIfUnused(of);
}

void UnitResidency::EndKeeping(int position) {
  const int also = At(position).unit.also;
  EndOneKeeping(position);
  if (also >= 0) EndOneKeeping(also);
}

void UnitResidency::EndOneKeeping(int position) {
  Residence& of = At(position);
  CHECK(of.keepers > 0, "{} is kept by nobody", of.unit.weights->name());
  --of.keepers;
  DropIfUnused(of);
}

void UnitResidency::DropIfUnused(Residence& of) {
  if (of.users > 0 || of.keepers > 0) return;
  of.arrivals.clear();
  of.unit.weights->Drop();
}

Task<void> UnitResidency::KeepAll(WeightPass pass) {
  std::vector<int> all(units_.size());
  std::iota(all.begin(), all.end(), 0);
  for (Residence& of : units_) ++of.keepers;
  co_await Gather(all, pass);
}

Task<Status> UnitResidency::EndKeepingAll() {
  for (const Residence& of : units_) {
    for (const auto& arrival : of.arrivals) {
      co_await arrival->here;
      CO_RETURN_IF_ERROR(arrival->status);
    }
  }
  for (int position = 0; position < static_cast<int>(units_.size()); ++position) {
    EndOneKeeping(position);
  }
  co_return Status{};
}

}  // namespace troupe
