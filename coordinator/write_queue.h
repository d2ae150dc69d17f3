// Messages on their way into a gRPC stream, which takes one write at a time. Thread-safe.
#pragma once

#include <cstddef>
#include <deque>
#include <mutex>

namespace troupe {

template <typename Message>
class WriteQueue {
 public:
  // Adds a message; true: the caller starts writing Front().
  bool Push(const Message& message) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(message);
    return queue_.size() == 1;
  }
  const Message* Front() {
    const std::lock_guard lock(mutex_);
    return queue_.empty() ? nullptr : &queue_.front();
  }
  // The front one is written; the next, if any. References survive pushes.
  const Message* Pop() {
    const std::lock_guard lock(mutex_);
    queue_.pop_front();
    return queue_.empty() ? nullptr : &queue_.front();
  }
  size_t size() const {
    const std::lock_guard lock(mutex_);
    return queue_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::deque<Message> queue_;
};

}  // namespace troupe
