// SimDriver: runs everybody on one thread and one virtual clock. In every round all participants do
// what they can, in an order drawn from the seed; when nobody can do anything, time jumps to the
// next thing that will happen.
//
// Thread: one.
//   U1. Time moves only while nobody has anything to do.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "runtime/sim/virtual_clock.h"

namespace troupe {

class SimDriver {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  SimDriver(VirtualClock& clock, uint64_t seed) : clock_(clock), seed_(seed) {}

  // `run` does what is ready and returns how much that was; `next_ns` is when there will be more,
  // or kNever. A Scheduler has both: RunUntilIdle and NextDeadlineNs. Either may be empty. Anybody
  // may be added and removed at any time, but from within their own `run`.
  using ParticipantId = int64_t;
  ParticipantId Add(std::function<int64_t()> run, std::function<int64_t()> next_ns) {
    participants_[next_participant_] = {std::move(run), std::move(next_ns)};
    return next_participant_++;
  }
  void Remove(ParticipantId participant) { participants_.erase(participant); }
  void At(int64_t time_ns, std::function<void()> action);
  // Called after every action, and every `run` that did something: where a run's invariants are
  // looked at.
  void AfterEach(std::function<void()> look) { look_ = std::move(look); }

  // One round, or one jump in time. False: nothing will ever happen again.
  bool Step();
  // Until `done`, or nothing will ever happen, or the time has come. True: `done`.
  bool RunUntil(const std::function<bool()>& done, int64_t deadline_ns = kNever);

 private:
  struct Participant {
    std::function<int64_t()> run{};
    std::function<int64_t()> next_ns{};
  };
  struct Action {
    int64_t time_ns = 0;
    std::function<void()> act{};
  };
  bool RunActions();
  int64_t NextNs() const;

  VirtualClock& clock_;
  const uint64_t seed_;
  uint64_t rounds_ = 0;
  std::map<ParticipantId, Participant> participants_{};
  ParticipantId next_participant_ = 0;
  std::function<void()> look_{};
  std::vector<Action> actions_{};  // by time, then in the order of At
};

}  // namespace troupe
