#include "runtime/actor/timer_wheel.h"

#include <algorithm>
#include <bit>

#include "runtime/base/check.h"

namespace troupe {

TimerWheel::TimerWheel(int64_t now_ns) : origin_ns_(now_ns) {
  for (auto& level : slots_) {
    for (TimerNode& head : level) InitList(&head);
  }
  InitList(&due_);
}

void TimerWheel::InitList(TimerNode* head) { head->prev = head->next = head; }

void TimerWheel::Append(TimerNode* head, TimerNode* timer) {
  timer->prev = head->prev;
  timer->next = head;
  head->prev->next = timer;
  head->prev = timer;
}

void TimerWheel::Splice(TimerNode* from, TimerNode* to) {
  if (from->next == from) return;
  from->next->prev = to->prev;
  to->prev->next = from->next;
  from->prev->next = to;
  to->prev = from->prev;
  InitList(from);
}

void TimerWheel::Arm(TimerNode* timer, int64_t deadline_ns) {
  CHECK(!timer->armed(), "a timer was armed twice");
  const int64_t offset_ns = std::max<int64_t>(deadline_ns - origin_ns_, 0);
  // 2 years after the wheel's start is the farthest that its levels can tell apart.
  constexpr int64_t kLastTick = (int64_t{1} << (kSlotBits * kLevels)) - 1;
  timer->tick = std::min(offset_ns / kTickNs + (offset_ns % kTickNs != 0 ? 1 : 0), kLastTick);
  Insert(timer);
  next_tick_ns_ = std::min(next_tick_ns_, origin_ns_ + timer->tick * kTickNs);
}

// The level is that of the highest bit in which the tick differs from now: all timers of a level
// lie in later slots than now's, so the lowest occupied level holds the earliest timer.
void TimerWheel::Insert(TimerNode* timer) {
  if (timer->tick <= elapsed_tick_) {
    timer->level = timer->slot = -1;
    Append(&due_, timer);
    return;
  }
  const uint64_t differing = static_cast<uint64_t>(timer->tick ^ elapsed_tick_);
  const int level = (63 - std::countl_zero(differing)) / kSlotBits;
  timer->level = static_cast<int16_t>(level);
  timer->slot = static_cast<int16_t>((timer->tick >> (kSlotBits * level)) & (kSlots - 1));
  Append(&slots_[level][timer->slot], timer);
  occupied_[level] |= uint64_t{1} << timer->slot;
}

void TimerWheel::Cancel(TimerNode* timer) {
  if (!timer->armed()) return;
  timer->prev->next = timer->next;
  timer->next->prev = timer->prev;
  timer->prev = timer->next = nullptr;
  if (timer->level < 0) return;
  TimerNode& head = slots_[timer->level][timer->slot];
  if (head.next == &head) occupied_[timer->level] &= ~(uint64_t{1} << timer->slot);
}

TimerWheel::Slot TimerWheel::NextSlot() const {
  for (int level = 0; level < kLevels; ++level) {
    if (occupied_[level] == 0) continue;
    const int slot = std::countr_zero(occupied_[level]);
    const int shift = kSlotBits * level;
    const int64_t block = elapsed_tick_ >> (shift + kSlotBits) << (shift + kSlotBits);
    return {level, slot, block | int64_t{slot} << shift};
  }
  return {};
}

int TimerWheel::FireList(TimerNode* head) {
  int fired = 0;
  while (head->next != head) {
    TimerNode* timer = head->next;
    timer->level = -1;
    Cancel(timer);
    timer->fire(timer);
    ++fired;
  }
  return fired;
}

int TimerWheel::Advance(int64_t now_ns) {
  if (now_ns < next_tick_ns_) return 0;
  const int64_t now_tick = (now_ns - origin_ns_) / kTickNs;
  TimerNode firing;
  InitList(&firing);
  Splice(&due_, &firing);
  int fired = FireList(&firing);
  for (Slot next = NextSlot(); next.start_tick <= now_tick; next = NextSlot()) {
    elapsed_tick_ = std::max(elapsed_tick_, next.start_tick);
    TimerNode moving;
    InitList(&moving);
    Splice(&slots_[next.level][next.slot], &moving);
    occupied_[next.level] &= ~(uint64_t{1} << next.slot);
    while (moving.next != &moving) {
      TimerNode* timer = moving.next;
      timer->level = -1;
      Cancel(timer);
      if (timer->tick <= elapsed_tick_) {
        timer->level = timer->slot = -1;
        Append(&firing, timer);
      } else {
        Insert(timer);
      }
    }
    fired += FireList(&firing);
  }
  elapsed_tick_ = std::max(elapsed_tick_, now_tick);
  next_tick_ns_ = NextDeadlineNs();
  return fired;
}

int64_t TimerWheel::NextDeadlineNs() const {
  if (due_.next != &due_) return origin_ns_ + elapsed_tick_ * kTickNs;
  const Slot next = NextSlot();
  if (next.level < 0) return kNever;
  int64_t tick = kNever;
  const TimerNode& head = slots_[next.level][next.slot];
  for (const TimerNode* timer = head.next; timer != &head; timer = timer->next) {
    tick = std::min(tick, timer->tick);
  }
  return origin_ns_ + tick * kTickNs;
}

}  // namespace troupe
