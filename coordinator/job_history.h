// JobHistory: what a job has said. Told at once to those who follow it, and from memory to those
// who come later, within bounds. Thread: the coordinator's event loop; events themselves are shared
// with gRPC's threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <utility>

#include "proto/control.pb.h"

namespace troupe {

// One event, kept once however many follow.
using SharedEvent = std::shared_ptr<const proto::JobEvent>;
// Bytes of all events that somebody still holds: a history, a stream that has not written them yet.
using EventBytes = std::shared_ptr<std::atomic<int64_t>>;

// A client that follows a job.
class FollowerPort {
 public:
  virtual ~FollowerPort() = default;
  // `num_bytes`: of the event in memory.
  virtual void Send(const SharedEvent& event, int64_t num_bytes) = 0;
  virtual void Finish() = 0;  // no event follows
};
using FollowerId = int64_t;

class JobHistory {
 public:
  // Of one job: the oldest go first. Who follows later has the run directory.
  static constexpr size_t kEventsMax = 16'384;
  static constexpr int64_t kBytesMax = int64_t{4} << 20;
  static constexpr size_t kShrunkEventsMax = 64;

  explicit JobHistory(EventBytes event_bytes) : event_bytes_(std::move(event_bytes)) {}

  // `keep` false: those who follow later do not get it.
  void Tell(proto::JobEvent event, bool keep);
  // Starts with what is kept; `now` where the start is not known any more. After End the port is
  // finished at once, and 0 returned.
  FollowerId Follow(FollowerPort* port, const proto::JobSummary& now);
  void Unfollow(FollowerId follower) { followers_.erase(follower); }
  void End();
  // Keeps only the newest few: for jobs that ended long ago.
  void Shrink();

  bool ended() const { return ended_; }
  int num_followers() const { return static_cast<int>(followers_.size()); }
  int64_t num_bytes() const { return num_bytes_; }

 private:
  // An event with its bytes in memory, which take a walk over all its fields to count: once.
  struct Kept {
    SharedEvent event{};
    int64_t num_bytes = 0;
  };
  Kept Counted(proto::JobEvent event) const;
  void DropOldest();

  const EventBytes event_bytes_;
  std::deque<Kept> events_{};
  int64_t num_bytes_ = 0;
  bool whole_ = true;
  bool ended_ = false;
  FollowerId next_follower_ = 1;
  std::map<FollowerId, FollowerPort*> followers_{};
};

}  // namespace troupe
