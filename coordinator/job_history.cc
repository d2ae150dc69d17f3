#include "coordinator/job_history.h"

#include <utility>

namespace troupe {
namespace {

int64_t BytesOfEvent(const proto::JobEvent& event) {
  return static_cast<int64_t>(event.SpaceUsedLong());
}

SharedEvent Counted(proto::JobEvent event, const EventBytes& total) {
  auto* kept = new proto::JobEvent(std::move(event));
  const int64_t num_bytes = BytesOfEvent(*kept);
  total->fetch_add(num_bytes, std::memory_order_relaxed);
  return {kept, [total, num_bytes](const proto::JobEvent* gone) {
            delete gone;
            total->fetch_sub(num_bytes, std::memory_order_relaxed);
          }};
}

}  // namespace

void JobHistory::Tell(proto::JobEvent event, bool keep) {
  const SharedEvent shared = Counted(std::move(event), event_bytes_);
  for (const auto& [id, follower] : followers_) follower->Send(shared);
  if (!keep) return;
  num_bytes_ += BytesOfEvent(*shared);
  events_.push_back(shared);
  while (events_.size() > kEventsMax || num_bytes_ > kBytesMax) DropOldest();
}

void JobHistory::DropOldest() {
  num_bytes_ -= BytesOfEvent(*events_.front());
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
    port->Send(Counted(std::move(event), event_bytes_));
  }
  for (const SharedEvent& event : events_) port->Send(event);
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
