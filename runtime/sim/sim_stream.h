// SimStream: a stream in virtual time. A piece of work runs at once when its turn comes and holds
// the stream as long as it says that it takes (SimWork); then its completion goes to the scheduler.
//
// Thread: the driver's. Driver, work and scheduler outlive it.
//   Y1. What work does is done at its beginning; who looks meanwhile sees it done.
//   Y2. The destructor is the end of a process: pieces that have not begun never do, completions
//       that have not come never come.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "runtime/actor/stream.h"
#include "runtime/sim/sim_driver.h"

namespace troupe {

// What the piece of work that runs now takes. One for all streams of a simulation: one piece runs
// at a time.
class SimWork {
 public:
  void Spend(int64_t ns) { spent_ns_ += ns; }
  int64_t spent_ns() const { return spent_ns_; }
  int64_t Take() { return std::exchange(spent_ns_, 0); }

 private:
  int64_t spent_ns_ = 0;
};

class SimStream : public Stream {
 public:
  SimStream(Scheduler& scheduler, SimDriver& driver, SimWork& work)
      : scheduler_(scheduler), driver_(driver), work_(work) {}
  ~SimStream() override;
  int64_t busy_since_ns() const override { return busy_since_ns_; }

 protected:
  void Enqueue(StreamJob* job) override;

 private:
  void Begin();

  Scheduler& scheduler_;
  SimDriver& driver_;
  SimWork& work_;
  RunQueue jobs_{};
  StreamJob* running_ = nullptr;  // it has run, and holds the stream
  int64_t busy_since_ns_ = 0;
  // What the driver calls later looks whether it is still there.
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace troupe
