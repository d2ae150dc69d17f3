#include "coordinator/job_history.h"

#include <utility>

namespace troupe {
JobHistory::Kept JobHistory::Counted(proto::JobEvent event) const {
  auto* kept = new proto::JobEvent(std::move(event));
  const auto num_bytes = static_cast<int64_t>(kept->SpaceUsedLong());
  event_bytes_->fetch_add(num_bytes, std::memory_order_relaxed);
  return {.event = {kept,
                    [total = event_bytes_, num_bytes](const proto::JobEvent* gone) {
                      delete gone;
                      total->fetch_sub(num_bytes, std::memory_order_relaxed);
                    }},
          .num_bytes = num_bytes};
}

void JobHistory::Tell(proto::JobEvent event, bool keep) {
  Kept kept = Counted(std::move(event));
  for (const auto& [id, follower] : followers_) follower->Send(kept.event, kept.num_bytes);
  if (!keep) return;
  num_bytes_ += kept.num_bytes;
  events_.push_back(std::move(kept));
  while (events_.size() > kEventsMax || num_bytes_ > kBytesMax) DropOldest();
}

void JobHistory::DropOldest() {
  num_bytes_ -= events_.front().num_bytes;
  events_.pop_front();
  whole_ = false;
}

void JobHistory::Shrink() {
  while (events_.size() > kShrunkEventsMax) DropOldest();
}

FollowerId JobHistory::Follow(FollowerPort* port, const proto::JobSummary& now) {
  if (!whole_) {
    proto::JobEvent event;
    *event.mutable_state() = now;
    const Kept state = Counted(std::move(event));
    port->Send(state.event, state.num_bytes);
  }
  for (const Kept& kept : events_) port->Send(kept.event, kept.num_bytes);
  if (ended_) {
    port->Finish();
    return 0;
  }
  const FollowerId id = next_follower_++;
  followers_[id] = port;
  return id;
}

void JobHistory::End() {
  ended_ = true;
  for (const auto& [id, follower] : std::exchange(followers_, {})) follower->Finish();
}

}  // namespace troupe
