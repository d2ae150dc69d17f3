#include "runtime/sim/sim_driver.h"

#include <algorithm>

#include "runtime/base/random.h"

namespace troupe {

void SimDriver::At(int64_t time_ns, std::function<void()> action) {
  const auto later = std::ranges::upper_bound(actions_, time_ns, {}, &Action::time_ns);
  actions_.insert(later, {time_ns, std::move(action)});
}

bool SimDriver::RunActions() {
  bool ran = false;
  while (!actions_.empty() && actions_.front().time_ns <= clock_.NowNs()) {
    const Action action = std::move(actions_.front());
    actions_.erase(actions_.begin());
    action.act();
    if (look_) look_();
    ran = true;
  }
  return ran;
}

int64_t SimDriver::NextNs() const {
  int64_t next_ns = actions_.empty() ? kNever : actions_.front().time_ns;
  for (const auto& [id, participant] : participants_) {
    if (participant.next_ns) next_ns = std::min(next_ns, participant.next_ns());
  }
  return next_ns;
}

bool SimDriver::Step() {
  int64_t work = RunActions() ? 1 : 0;
  std::vector<ParticipantId> present;
  for (const auto& [id, participant] : participants_) present.push_back(id);
  const auto size = static_cast<int64_t>(present.size());
  for (const int64_t index : Permutation(RandomKey(seed_ + rounds_++, "sim.order"), size)) {
    const auto participant = participants_.find(present[static_cast<size_t>(index)]);
    if (participant == participants_.end() || !participant->second.run) continue;
    const int64_t done = participant->second.run();
    if (done > 0 && look_) look_();
    work += done;
  }
  if (work > 0) return true;
  const int64_t next_ns = NextNs();
  if (next_ns == kNever) return false;
  clock_.AdvanceTo(std::max(next_ns, clock_.NowNs()));
  return true;
}

bool SimDriver::RunUntil(const std::function<bool()>& done, int64_t deadline_ns) {
  while (!done()) {
    if (clock_.NowNs() >= deadline_ns || !Step()) return done();
  }
  return true;
}

}  // namespace troupe
