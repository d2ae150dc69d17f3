// Credits with absolute limits: the receiver says how many messages it has ever allowed, so an
// update that is lost, doubled or late does no harm. Pure; both ends of one channel.
//
//   L1. sent() <= limit() always: TrySpend refuses otherwise.
//   L2. limit() never falls.
//   L3. With n slots: limit = freed + n, so at most n messages are unfreed at any time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/base/check.h"

namespace troupe {

class CreditSender {
 public:
  explicit CreditSender(int64_t limit) : limit_(limit) {}

  bool TrySpend() {
    if (sent_ >= limit_) return false;
    ++sent_;
    return true;
  }
  // An announced limit, in any order. True: there is credit now and was none before.
  bool Raise(int64_t limit) {
    const bool was_empty = available() == 0;
    limit_ = std::max(limit_, limit);
    return was_empty && available() > 0;
  }
  int64_t available() const { return limit_ - sent_; }
  int64_t sent() const { return sent_; }
  int64_t limit() const { return limit_; }

 private:
  int64_t limit_;
  int64_t sent_ = 0;
};

class CreditReceiver {
 public:
  explicit CreditReceiver(int64_t num_slots) : num_slots_(num_slots) {}

  void Take() {
    ++taken_;
    CHECK(taken_ - freed_ <= num_slots_, "a message came without credit: {} slots", num_slots_);
  }
  // Frees one slot; returns the limit to announce.
  int64_t Free() {
    CHECK(freed_ < taken_, "a slot was freed twice");
    ++freed_;
    return limit();
  }
  int64_t limit() const { return freed_ + num_slots_; }
  int64_t in_use() const { return taken_ - freed_; }

 private:
  int64_t num_slots_;
  int64_t taken_ = 0;
  int64_t freed_ = 0;
};

}  // namespace troupe
