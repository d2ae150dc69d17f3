// Inbox: how other threads hand work to a scheduler. Intrusive, multi-producer, one consumer.
// One atomic word is both the queue and the parked state: null (awake, empty), kParked (asleep,
// empty) or the newest item. With a single word there is no order of two writes to get wrong: an
// owner parks only while the queue is empty, and exactly one push sees it parked and wakes it.
//
//   I1. Items of one producer come out in the order of their pushes.
//   I2. A push that replaces kParked returns true, and no other push does until the next park.
//   I3. TryPark succeeds only when every pushed item has been taken.
#pragma once

#include <atomic>

#include "runtime/actor/runnable.h"

namespace troupe {

// Atomic is a parameter so that a test can explore every interleaving of its operations.
template <template <typename> typename Atomic = std::atomic>
class BasicInbox {
 public:
  // Any thread. True: the owner sleeps and the caller must wake it.
  bool Push(Runnable* item) {
    Runnable* seen = state_.load(std::memory_order_relaxed);
    do {
      item->next = seen == Parked() ? nullptr : seen;
    } while (!state_.compare_exchange_weak(seen, item, std::memory_order_acq_rel,
                                           std::memory_order_relaxed));
    return seen == Parked();
  }

  // Owner. All items, linked by next, oldest first; null when there are none.
  Runnable* TakeAll() {
    if (state_.load(std::memory_order_relaxed) == nullptr) return nullptr;
    Runnable* newest = state_.exchange(nullptr, std::memory_order_acq_rel);
    if (newest == Parked()) return nullptr;
    Runnable* oldest = nullptr;
    while (newest != nullptr) {
      Runnable* older = newest->next;
      newest->next = oldest;
      oldest = newest;
      newest = older;
    }
    return oldest;
  }

  // Owner. False: something arrived meanwhile; take it instead of sleeping.
  bool TryPark() {
    Runnable* empty = nullptr;
    return state_.compare_exchange_strong(empty, Parked(), std::memory_order_acq_rel,
                                          std::memory_order_relaxed);
  }

  // Owner, awake again for a reason of its own (a timer, a descriptor).
  void Unpark() {
    Runnable* parked = Parked();
    state_.compare_exchange_strong(parked, nullptr, std::memory_order_acq_rel,
                                   std::memory_order_relaxed);
  }

  bool Empty() const {
    Runnable* seen = state_.load(std::memory_order_relaxed);
    return seen == nullptr || seen == Parked();
  }

 private:
  static Runnable* Parked() {
    static constinit Runnable parked{};
    return &parked;
  }

  Atomic<Runnable*> state_{nullptr};
};

using Inbox = BasicInbox<>;

}  // namespace troupe
