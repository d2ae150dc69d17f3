// StateReaders: who reads a rank's weights and optimizer state beside its steps: a checkpoint on
// its way to the disk. They change in an update alone, and an update waits until they have been
// read.
//
// Thread: the scheduler's. Outlives the tasks that wait.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/actor/stream_wait.h"
#include "runtime/base/check.h"

namespace troupe {

class StateReaders {
 public:
  // `step`: whose state is written.
  void Begin(int64_t step) {
    ++reading_;
    step_ = step;
  }
  void End() {
    CHECK(reading_ > 0, "a reader ends that has not begun");
    if (--reading_ > 0) return;
    for (const auto& waits : std::exchange(waiting_, {})) waits->Set();
  }
  int64_t step() const { return step_; }  // of who began last
  // Happens when those who read now have ended; null: nobody reads. One task awaits it.
  std::shared_ptr<StreamEvent> Ended() {
    if (reading_ == 0) return nullptr;
    return waiting_.emplace_back(std::make_shared<StreamEvent>());
  }

 private:
  int reading_ = 0;
  int64_t step_ = -1;
  std::vector<std::shared_ptr<StreamEvent>> waiting_{};
};

}  // namespace troupe
