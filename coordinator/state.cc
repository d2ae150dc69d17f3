#include "coordinator/state.h"

#include <fmt/format.h>

#include <utility>

#include "coordinator/job_life.h"

namespace troupe {

namespace {

constexpr size_t kWholeHistoriesMax = 16;
constexpr size_t kEndedJobsMax = 1000;

}  // namespace

State::State() = default;
State::~State() = default;

Result<std::vector<Placement>> PlaceRanks(const std::map<HostId, Host>& hosts, int num_ranks) {
  std::vector<Placement> places;
  int total = 0;
  for (const auto& [id, host] : hosts) {
    if (host.port == nullptr || host.leaving) continue;
    total += host.slots;
    for (int slot = 0; slot < host.slots && static_cast<int>(places.size()) < num_ranks; ++slot) {
      if (!host.used_slots.contains(slot)) places.push_back({id, slot});
    }
  }
  if (static_cast<int>(places.size()) == num_ranks) return places;
  return MakeError(ErrorCode::kUnavailable,
                   "{} workers need as many slots, {} of {} are free: start an agent with `troupe "
                   "worker --join … --slots {}`",
                   num_ranks, places.size(), total, num_ranks - static_cast<int>(places.size()));
}

void StartWhatFits(State& state) {
  for (auto& [id, job] : state.jobs) {
    if (job->state() != proto::JOB_STATE_QUEUED) continue;
    auto places = PlaceRanks(state.hosts, job->num_workers());
    if (!places.ok()) {
      job->StayQueued(places.error().message);
      return;  // first come, first served
    }
    for (const Placement& place : *places) {
      state.hosts[place.host].used_slots.insert(place.slot);
    }
    job->Start(*std::move(places));
  }
}

void Forget(State& state, uint64_t job) {
  state.ended.push_back(job);
  if (state.ended.size() > kWholeHistoriesMax) {
    state.jobs.at(state.ended[state.ended.size() - 1 - kWholeHistoriesMax])->ShrinkHistory();
  }
  if (state.ended.size() <= kEndedJobsMax) return;
  const uint64_t oldest = state.ended.front();
  state.ended.pop_front();
  std::erase_if(state.by_submission, [&](const auto& known) { return known.second == oldest; });
  state.jobs.erase(oldest);
}

void HostGone(State& state, HostId id, const std::string& why) {
  const auto host = state.hosts.find(id);
  if (host == state.hosts.end() || host->second.port == nullptr) return;
  host->second.port = nullptr;
  for (auto& [job_id, job] : state.jobs) job->HostLost(id, why);
  state.hosts.erase(id);
  StartWhatFits(state);
}

}  // namespace troupe
