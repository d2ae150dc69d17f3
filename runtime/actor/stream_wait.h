// What a stream's task may await: an event, a call on the scheduler's thread, a time.
//
//     co_await arrived;                              // StreamEvent, set by a handler
//     co_await OnScheduler([&] { peer.Send(…); });   // there and back
//     co_await StreamSleep(delay_ms);
//     co_await room;                                 // StreamSemaphore
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <utility>

#include "runtime/actor/scheduler.h"
#include "runtime/actor/stream.h"
#include "runtime/actor/timer_wheel.h"

namespace troupe {

// Something that happens once. One task awaits it; awaited after it happened, it costs one atomic
// load.
// Thread: Set on the scheduler's. Outlives its wait.
class StreamEvent {
 public:
  StreamEvent() = default;
  StreamEvent(const StreamEvent&) = delete;
  StreamEvent& operator=(const StreamEvent&) = delete;

  void Set() {
    Wait* const wait = std::exchange(wait_, nullptr);
    // Where nobody waits, whoever sees it may end the event at once.
    happened_.store(true, std::memory_order_release);
    if (wait != nullptr) wait->Happened();
  }
  bool happened() const { return happened_.load(std::memory_order_acquire); }

  auto operator co_await() { return Wait(*this); }

 private:
  class Wait final : public StreamWait {
   public:
    explicit Wait(StreamEvent& event) : event_(event) {}
    ~Wait() {
      if (begun_) event_.wait_ = nullptr;
    }
    bool await_ready() const { return event_.happened(); }
    void await_resume() const {}
    void Happened() {
      begun_ = false;
      Resume();
    }

   private:
    void Begin() override {
      if (event_.happened()) return Resume();
      CHECK(event_.wait_ == nullptr, "two tasks await one event");
      begun_ = true;
      event_.wait_ = this;
    }
    StreamEvent& event_;
    bool begun_ = false;
  };

  std::atomic<bool> happened_{false};
  Wait* wait_ = nullptr;
};

// So many tasks at once have what it counts: a buffer each, say. Each await takes one, in the order
// in which they began to wait.
// Thread: Give on the scheduler's. Outlives its waits.
class StreamSemaphore {
 public:
  explicit StreamSemaphore(int count) : count_(count) {}
  StreamSemaphore(const StreamSemaphore&) = delete;
  StreamSemaphore& operator=(const StreamSemaphore&) = delete;

  void Give() {
    if (waits_.empty()) {
      count_.fetch_add(1, std::memory_order_acq_rel);
      return;
    }
    Wait* first = waits_.front();
    waits_.pop_front();
    first->Have();
  }

  auto operator co_await() { return Wait(*this); }

 private:
  class Wait final : public StreamWait {
   public:
    explicit Wait(StreamSemaphore& semaphore) : semaphore_(semaphore) {}
    ~Wait() {
      if (waiting_) std::erase(semaphore_.waits_, this);
    }
    bool await_ready() const { return semaphore_.TryTake(); }
    void await_resume() const {}
    void Have() {
      waiting_ = false;
      Resume();
    }

   private:
    void Begin() override {
      if (semaphore_.TryTake()) return Resume();
      waiting_ = true;
      semaphore_.waits_.push_back(this);
    }
    StreamSemaphore& semaphore_;
    bool waiting_ = false;
  };

  bool TryTake() {
    int count = count_.load(std::memory_order_acquire);
    while (count > 0) {
      if (count_.compare_exchange_weak(count, count - 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  std::atomic<int> count_;
  std::deque<Wait*> waits_{};  // the scheduler's thread
};

// Runs `call` on the scheduler's thread; the task goes on when it has run.
template <typename Call>
class OnScheduler final : public StreamWait {
 public:
  explicit OnScheduler(Call call) : call_(std::move(call)) {}
  bool await_ready() const { return false; }
  void await_resume() const {}

 private:
  void Begin() override {
    call_();
    Resume();
  }
  Call call_;
};

// By the scheduler's clock, a tick of the timer wheel (1 ms) late at most.
class StreamSleep final : public StreamWait, private TimerNode {
 public:
  explicit StreamSleep(int64_t delay_ms) : delay_ms_(delay_ms) {}
  ~StreamSleep() {
    if (wheel_ != nullptr) wheel_->Cancel(this);
  }
  bool await_ready() const { return delay_ms_ <= 0; }
  void await_resume() const {}

 private:
  void Begin() override {
    Scheduler* scheduler = Scheduler::Current();
    wheel_ = &scheduler->timers();
    fire = [](TimerNode* timer) {
      auto* sleep = static_cast<StreamSleep*>(timer);
      sleep->wheel_ = nullptr;
      sleep->Resume();
    };
    wheel_->Arm(this, scheduler->clock().NowNs() + delay_ms_ * TimerWheel::kTickNs);
  }
  const int64_t delay_ms_;
  TimerWheel* wheel_ = nullptr;
};

}  // namespace troupe
