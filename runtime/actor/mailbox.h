// Mailbox: the owner's side of an actor's queue. Messages from the scheduler's own thread are
// appended directly; those of other threads reserve a place here and travel through the inbox.
//
//   M1. First in, first out per sending thread.
//   M2. Queued and travelling messages never exceed the bound by more than one for each thread
//       that is sending at that very moment.
//   M3. System messages (Down) take no place and are never refused.
//   M4. With Overflow::kDropOldest nothing is refused: the oldest queued message makes room for the
//       newest, and the dropped ones are counted. As many as the bound may travel besides.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/actor/message.h"

namespace troupe {

// What a full mailbox does with the next message.
enum class Overflow : uint8_t {
  kRefuse,      // control: the sender gets kResourceExhausted and decides
  kDropOldest,  // telemetry: only the newest matter
};

class Mailbox {
 public:
  // Owner, between two actors in the same cell.
  void Reset(int bound, Overflow overflow) {
    bound_.store(bound, std::memory_order_relaxed);
    overflow_.store(overflow, std::memory_order_relaxed);
    num_dropped_.store(0, std::memory_order_relaxed);
  }
  Overflow overflow() const { return overflow_.load(std::memory_order_relaxed); }
  int64_t num_dropped() const { return num_dropped_.load(std::memory_order_relaxed); }
  void CountDropped() { num_dropped_.fetch_add(1, std::memory_order_relaxed); }
  // Owner, with kDropOldest: room for one more, at the cost of the oldest.
  void MakeRoom() {
    while (size() >= bound() && !empty()) {
      MessageNode* oldest = Pop();
      CountDropped();
      oldest->destroy(oldest);
    }
  }
  // Other threads, with kDropOldest: a place under way.
  bool TryReserveUnderWay() {
    if (travelling_.fetch_add(1, std::memory_order_relaxed) < bound()) return true;
    travelling_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }

  int bound() const { return bound_.load(std::memory_order_relaxed); }

  // Owner thread: a place for a message that is appended at once.
  bool HasRoom() const {
    return queued_.load(std::memory_order_relaxed) + travelling_.load(std::memory_order_relaxed) <
           bound_.load(std::memory_order_relaxed);
  }
  // Other threads: a place for a message that goes through the inbox.
  bool TryReserve() {
    const int32_t travelling = travelling_.fetch_add(1, std::memory_order_relaxed);
    if (travelling + queued_.load(std::memory_order_relaxed) < bound()) return true;
    travelling_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  // Past the bound (M3).
  void Reserve() { travelling_.fetch_add(1, std::memory_order_relaxed); }
  // Owner: a reserved message has arrived (or was found stale).
  void Unreserve() { travelling_.fetch_sub(1, std::memory_order_relaxed); }

  void Append(MessageNode* node) {
    node->next = nullptr;
    (tail_ != nullptr ? tail_->next : head_) = node;
    tail_ = node;
    SetQueued(+1);
  }
  MessageNode* Pop() {
    Runnable* node = head_;
    if (node == nullptr) return nullptr;
    head_ = node->next;
    if (head_ == nullptr) tail_ = nullptr;
    SetQueued(-1);
    return static_cast<MessageNode*>(node);
  }
  bool empty() const { return head_ == nullptr; }
  int size() const { return queued_.load(std::memory_order_relaxed); }

 private:
  // Only the owner writes, so a load and a store do: no locked instruction on the local path.
  void SetQueued(int32_t change) {
    queued_.store(queued_.load(std::memory_order_relaxed) + change, std::memory_order_relaxed);
  }

  Runnable* head_ = nullptr;
  Runnable* tail_ = nullptr;
  std::atomic<int32_t> queued_{0};
  std::atomic<int32_t> travelling_{0};
  std::atomic<int32_t> bound_{0};
  std::atomic<Overflow> overflow_{Overflow::kRefuse};
  std::atomic<int64_t> num_dropped_{0};
};

}  // namespace troupe
