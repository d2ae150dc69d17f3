// Messages on their way into a gRPC stream, which takes one write at a time; their bytes are
// counted, for whoever has to bound them. Thread-safe.
#pragma once

#include <cstddef>
#include <deque>
#include <mutex>
#include <utility>

namespace troupe {

template <typename Message>
class WriteQueue {
 public:
  // Adds a message of so many bytes; true: the caller starts writing Front().
  bool Push(const Message& message, size_t num_bytes) {
    const std::lock_guard lock(mutex_);
    queue_.emplace_back(message, num_bytes);
    bytes_ += num_bytes;
    return queue_.size() == 1;
  }
  const Message* Front() {
    const std::lock_guard lock(mutex_);
    return queue_.empty() ? nullptr : &queue_.front().first;
  }
  // The front one is written; the next, if any. References survive pushes.
  const Message* Pop() {
    const std::lock_guard lock(mutex_);
    bytes_ -= queue_.front().second;
    queue_.pop_front();
    return queue_.empty() ? nullptr : &queue_.front().first;
  }
  bool empty() const {
    const std::lock_guard lock(mutex_);
    return queue_.empty();
  }
  // Of all that is not written yet.
  size_t bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  mutable std::mutex mutex_;
  std::deque<std::pair<Message, size_t>> queue_;
  size_t bytes_ = 0;
};

}  // namespace troupe
