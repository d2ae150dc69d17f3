// Runnable: what a scheduler runs next: an actor with mail, a coroutine to resume, a posted
// closure. Intrusive, so queueing allocates nothing.
//
// Thread: RunQueue belongs to its scheduler's thread.
#pragma once

#include <utility>

#include "runtime/actor/pool.h"

namespace troupe {

struct Runnable {
  enum class Fate { kRun, kDiscard };  // kDiscard: the scheduler ends; free without running

  Runnable* prev = nullptr;
  Runnable* next = nullptr;
  void (*act)(Runnable*, Fate) = nullptr;
  bool queued = false;
};

// First in, first out. Removal from the middle serves coroutines that are destroyed while queued.
class RunQueue {
 public:
  bool empty() const { return head_ == nullptr; }

  void PushBack(Runnable* item) {
    item->prev = tail_;
    item->next = nullptr;
    item->queued = true;
    (tail_ != nullptr ? tail_->next : head_) = item;
    tail_ = item;
  }
  Runnable* PopFront() {
    Runnable* item = head_;
    if (item != nullptr) Remove(item);
    return item;
  }
  void Remove(Runnable* item) {
    (item->prev != nullptr ? item->prev->next : head_) = item->next;
    (item->next != nullptr ? item->next->prev : tail_) = item->prev;
    item->queued = false;
  }

 private:
  Runnable* head_ = nullptr;
  Runnable* tail_ = nullptr;
};

// A move-only closure as a runnable; frees itself.
template <typename F>
struct ClosureRunnable : Runnable, Pooled {
  explicit ClosureRunnable(F f) : function(std::move(f)) {
    act = [](Runnable* self, Fate fate) {
      auto* closure = static_cast<ClosureRunnable*>(self);
      if (fate == Fate::kRun) closure->function();
      delete closure;
    };
  }
  F function;
};

template <typename F>
Runnable* MakeRunnable(F function) {
  return new ClosureRunnable<F>(std::move(function));
}

}  // namespace troupe
