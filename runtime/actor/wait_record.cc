#include "runtime/actor/wait_record.h"

#include <fmt/format.h>

#include "runtime/base/check.h"

namespace troupe {
namespace {

using wait_internal::WaitEntry;

std::string OwedText(const WaitSubject& subject) {
  std::string text;
  if (subject.microbatch >= 0) text += fmt::format("microbatch {}", subject.microbatch);
  if (!subject.activity.empty()) {
    text += fmt::format("{}{}", text.empty() ? "" : " ", subject.activity);
  }
  return fmt::format("{}{}{}", text, text.empty() ? "" : ": ", subject.owed);
}

WaitRecord RecordOf(const WaitEntry& entry) {
  WaitRecord record;
  record.waiter = entry.subject.waiter;
  record.owed = OwedText(entry.subject);
  record.from = entry.subject.from;
  if (entry.subject.detail != nullptr) {
    record.from += fmt::format(" ({})", entry.subject.detail(entry.subject.about));
  }
  if (entry.subject.from_rank >= 0) record.from_ranks = {entry.subject.from_rank};
  if (entry.subject.owing != nullptr) {
    record.from_ranks = entry.subject.owing(entry.subject.about);
  }
  record.step = entry.subject.step;
  record.microbatch = entry.subject.microbatch;
  record.since_ns = entry.since_ns;
  if (entry.subject.deadline_ms > 0) {
    record.deadline_ns = entry.since_ns + entry.subject.deadline_ms * TimerWheel::kTickNs;
  }
  record.overdue = entry.overdue;
  return record;
}

}  // namespace

std::string DeadlineSentence(const WaitSubject& subject) {
  std::string sentence = fmt::format("{}: {}", subject.waiter, OwedText(subject));
  if (!subject.from.empty()) sentence += fmt::format(" from {}", subject.from);
  sentence += fmt::format(": deadline {} ms passed", subject.deadline_ms);
  if (subject.step >= 0) sentence += fmt::format(" in step {}", subject.step);
  if (subject.detail != nullptr) sentence += fmt::format(", {}", subject.detail(subject.about));
  return sentence;
}

WaitBoard::~WaitBoard() {
  CHECK(oldest_ == nullptr, "{} is still waiting for {} while its scheduler ends",
        oldest_->subject.waiter, oldest_->subject.owed);
}

WaitHandle WaitBoard::Begin(const WaitSubject& subject) {
  auto* entry = new WaitEntry;
  entry->fire = &WaitBoard::Fire;
  entry->board = this;
  entry->subject = subject;
  entry->since_ns = now_ns_;
  entry->previous_wait = newest_;
  (newest_ != nullptr ? newest_->next_wait : oldest_) = entry;
  newest_ = entry;
  ++size_;
  if (subject.deadline_ms > 0) {
    wheel_.Arm(entry, now_ns_ + subject.deadline_ms * TimerWheel::kTickNs);
  }
  return WaitHandle(entry);
}

void WaitBoard::End(WaitEntry* entry) {
  wheel_.Cancel(entry);
  (entry->previous_wait != nullptr ? entry->previous_wait->next_wait : oldest_) = entry->next_wait;
  (entry->next_wait != nullptr ? entry->next_wait->previous_wait : newest_) = entry->previous_wait;
  --size_;
  delete entry;
}

void WaitBoard::Fire(TimerNode* timer) {
  auto* entry = static_cast<WaitEntry*>(timer);
  entry->overdue = true;
  WaitBoard* board = entry->board;
  // The callback may end this very wait, so nothing of the entry is used after it.
  if (board->on_deadline_) board->on_deadline_(RecordOf(*entry), DeadlineSentence(entry->subject));
}

std::vector<WaitRecord> WaitBoard::Snapshot() const {
  std::vector<WaitRecord> records;
  records.reserve(static_cast<size_t>(size_));
  for (const WaitEntry* entry = oldest_; entry != nullptr; entry = entry->next_wait) {
    records.push_back(RecordOf(*entry));
  }
  return records;
}

}  // namespace troupe
