// TimerWheel: hierarchical, 6 levels of 64 slots, 1 ms ticks, O(1) to arm and cancel.
// Source: Varghese and Lauck, "Hashed and hierarchical timing wheels" (SOSP'87), scheme 7.
//
// Thread: its scheduler's.
//   W1. A timer never fires early, and fires in the first Advance at or after its tick.
//   W2. Timers of one Advance fire by tick, and in the order of arming within a tick.
//   W3. A timer may arm, cancel or destroy any timer, itself included, while it fires.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

namespace troupe {

// Intrusive; `fire` runs with the timer already disarmed. Destroying an armed node is a defect:
// its owner cancels first.
struct TimerNode {
  TimerNode* prev = nullptr;
  TimerNode* next = nullptr;
  int64_t tick = 0;
  void (*fire)(TimerNode*) = nullptr;
  int16_t level = -1;
  int16_t slot = -1;

  bool armed() const { return next != nullptr; }
};

class TimerWheel {
 public:
  static constexpr int64_t kTickNs = 1'000'000;
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  explicit TimerWheel(int64_t now_ns);
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  void Arm(TimerNode* timer, int64_t deadline_ns);
  void Cancel(TimerNode* timer);

  // Fires what is due; returns how many fired.
  int Advance(int64_t now_ns);
  // When the earliest timer fires, or kNever.
  int64_t NextDeadlineNs() const;
  // A cheap lower bound: Advance(now) before it does nothing.
  int64_t next_tick_ns() const { return next_tick_ns_; }

 private:
  static constexpr int kLevels = 6;
  static constexpr int kSlotBits = 6;
  static constexpr int kSlots = 1 << kSlotBits;

  struct Slot {
    int level = -1;
    int slot = -1;
    int64_t start_tick = kNever;
  };
  static void InitList(TimerNode* head);
  static void Append(TimerNode* head, TimerNode* timer);
  static void Splice(TimerNode* from, TimerNode* to);
  void Insert(TimerNode* timer);
  Slot NextSlot() const;
  int FireList(TimerNode* head);

  const int64_t origin_ns_;
  int64_t elapsed_tick_ = 0;
  int64_t next_tick_ns_ = kNever;
  std::array<uint64_t, kLevels> occupied_{};  // bit s: slot s of the level holds a timer
  std::array<std::array<TimerNode, kSlots>, kLevels> slots_;
  TimerNode due_;  // armed with a deadline that had passed; fires in the next Advance
};

}  // namespace troupe
