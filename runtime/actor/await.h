// Awaitables of an actor's handler. All of them resume through the scheduler's run queue, never
// inside the one who wakes them, and unregister when their coroutine is destroyed.
//
// Thread: the scheduler's.
#pragma once

#include <coroutine>
#include <cstdint>

#include "runtime/actor/runnable.h"
#include "runtime/actor/scheduler.h"
#include "runtime/actor/timer_wheel.h"

namespace troupe {

// A suspended coroutine that somebody may wake, once. Lives in the coroutine's frame.
class Suspension : private Runnable {
 public:
  Suspension() {
    act = [](Runnable* self, Fate fate) {
      auto* suspension = static_cast<Suspension*>(self);
      if (fate == Fate::kRun)
        suspension->scheduler_->ResumeIn(suspension->cell_, suspension->handle_);
    };
  }
  Suspension(const Suspension&) = delete;
  Suspension& operator=(const Suspension&) = delete;
  ~Suspension() {
    if (queued) scheduler_->Unready(this);
  }

  void Suspend(std::coroutine_handle<> handle) {
    scheduler_ = Scheduler::Current();
    CHECK(scheduler_ != nullptr, "only a handler that a scheduler runs may wait");
    cell_ = scheduler_->current_cell();
    handle_ = handle;
  }
  void Wake() {
    if (!queued) scheduler_->MakeReady(this);
  }

 private:
  Scheduler* scheduler_ = nullptr;
  ActorCell* cell_ = nullptr;
  std::coroutine_handle<> handle_;
};

// co_await Sleep(ms): the actor takes no message meanwhile; ActorContext::After lets it.
class Sleep : private TimerNode {
 public:
  explicit Sleep(int64_t delay_ms) : delay_ms_(delay_ms) {}
  Sleep(const Sleep&) = delete;
  Sleep& operator=(const Sleep&) = delete;
  ~Sleep() {
    if (wheel_ != nullptr) wheel_->Cancel(this);
  }

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    suspension_.Suspend(handle);
    Scheduler* scheduler = Scheduler::Current();
    wheel_ = &scheduler->timers();
    fire = [](TimerNode* timer) { static_cast<Sleep*>(timer)->suspension_.Wake(); };
    wheel_->Arm(this, scheduler->clock().NowNs() + delay_ms_ * TimerWheel::kTickNs);
  }
  void await_resume() const noexcept {}

 private:
  int64_t delay_ms_;
  TimerWheel* wheel_ = nullptr;
  Suspension suspension_;
};

}  // namespace troupe
