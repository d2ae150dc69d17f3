// Wait records: every blocked edge of a scheduler (who waits, for what, from whom, since when), so
// that a passed deadline and `status --why` can name the cause of a stall.
//
// Begin and the end of a wait are two list operations and two timer operations; no string is built
// before a deadline passes or somebody asks.
//
// Thread: the scheduler's.
//   B1. A wait is on the board from Begin until its handle is destroyed or reset.
//   B2. A passed deadline calls the board's callback once; the wait stays on the board, overdue.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/actor/pool.h"
#include "runtime/actor/timer_wheel.h"
#include "runtime/base/clock.h"

namespace troupe {

// What the waiter says when it begins. The views must outlive the handle: names that live as long
// as their actor, or literals.
struct WaitSubject {
  std::string_view waiter;    // "stage 2 (rank 5)"
  std::string_view activity;  // "forward", or empty
  std::string_view owed;      // "activation"
  std::string_view from;      // "stage 1 (rank 1)", or empty where nobody owes
  int64_t step = -1;
  int microbatch = -1;
  int from_rank = -1;       // the rank that owes, where one does
  int64_t deadline_ms = 0;  // 0: none; the wait is then only listed
  // What has arrived so far ("0 of 33554432 bytes"); called only for a report.
  std::string (*detail)(const void* about) = nullptr;
  // The ranks that owe, where several do; likewise.
  std::vector<int> (*owing)(const void* about) = nullptr;
  const void* about = nullptr;
};

// One edge of the wait graph, as reported.
struct WaitRecord {
  std::string waiter;
  std::string owed;  // "microbatch 17 forward: activation"
  std::string from;  // with the subject's detail, if it has one
  std::vector<int> from_ranks;
  int64_t step = -1;
  int microbatch = -1;
  int64_t since_ns = 0;
  int64_t deadline_ns = TimerWheel::kNever;
  bool overdue = false;
};

class WaitBoard;

namespace wait_internal {

struct WaitEntry : TimerNode, Pooled {
  WaitEntry* previous_wait = nullptr;
  WaitEntry* next_wait = nullptr;
  WaitBoard* board = nullptr;
  WaitSubject subject;
  int64_t since_ns = 0;
  bool overdue = false;
};

}  // namespace wait_internal

// Keeps a wait on the board. Move-only; may outlive nothing of the board.
class [[nodiscard]] WaitHandle {
 public:
  WaitHandle() = default;
  WaitHandle(WaitHandle&& other) noexcept : entry_(std::exchange(other.entry_, nullptr)) {}
  WaitHandle& operator=(WaitHandle&& other) noexcept {
    if (this != &other) {
      Reset();
      entry_ = std::exchange(other.entry_, nullptr);
    }
    return *this;
  }
  ~WaitHandle() { Reset(); }

  void Reset();  // the wait is over
  // The same wait, now for somebody else: WaitSubject::from. Call while waiting.
  void OwedBy(std::string_view from) { entry_->subject.from = from; }
  bool waiting() const { return entry_ != nullptr; }
  bool overdue() const { return entry_ != nullptr && entry_->overdue; }

 private:
  friend class WaitBoard;
  explicit WaitHandle(wait_internal::WaitEntry* entry) : entry_(entry) {}
  wait_internal::WaitEntry* entry_ = nullptr;
};

class WaitBoard {
 public:
  // `now_ns` is the scheduler's time of the pass: since and deadline count from it.
  WaitBoard(TimerWheel& wheel, const int64_t& now_ns) : wheel_(wheel), now_ns_(now_ns) {}
  ~WaitBoard();
  WaitBoard(const WaitBoard&) = delete;
  WaitBoard& operator=(const WaitBoard&) = delete;

  WaitHandle Begin(const WaitSubject& subject);

  // Called once per passed deadline, with one sentence:
  // "stage 2 (rank 5): microbatch 17 forward: activation from stage 1 (rank 1): deadline 30000 ms
  // passed, 0 of 33554432 bytes".
  using OnDeadline = std::function<void(const WaitRecord& record, const std::string& sentence)>;
  void SetOnDeadline(OnDeadline on_deadline) { on_deadline_ = std::move(on_deadline); }

  std::vector<WaitRecord> Snapshot() const;  // oldest first
  int size() const { return size_; }

 private:
  friend class WaitHandle;
  static void Fire(TimerNode* timer);
  void End(wait_internal::WaitEntry* entry);

  TimerWheel& wheel_;
  const int64_t& now_ns_;
  wait_internal::WaitEntry* oldest_ = nullptr;
  wait_internal::WaitEntry* newest_ = nullptr;
  int size_ = 0;
  OnDeadline on_deadline_;
};

// The same sentence for those who report a wait of their own.
std::string DeadlineSentence(const WaitSubject& subject);

inline void WaitHandle::Reset() {
  if (auto* entry = std::exchange(entry_, nullptr)) entry->board->End(entry);
}

}  // namespace troupe
