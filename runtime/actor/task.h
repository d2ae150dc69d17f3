// Task<T>: a lazy coroutine. It starts when awaited, runs on the awaiting thread and resumes its
// awaiter by symmetric transfer, so a chain of any length uses one stack frame. Frames are pooled.
// No exception leaves a task: errors travel as Result, and an escaping exception aborts.
//
// Thread: a task and everything it awaits belong to one scheduler's thread.
//   T1. The Task object owns the frame; destroying it destroys a suspended coroutine with all
//       that it awaits, and every awaitable of this folder unregisters itself then.
//   T2. A task is awaited or started at most once.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "runtime/actor/pool.h"
#include "runtime/base/check.h"

namespace troupe {

template <typename T = void>
class [[nodiscard]] Task;

namespace task_internal {

struct FinalAwaiter {
  bool await_ready() noexcept { return false; }
  template <typename Promise>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> handle) noexcept {
    return handle.promise().continuation;
  }
  void await_resume() noexcept {}
};

struct PromiseBase {
  std::coroutine_handle<> continuation = std::noop_coroutine();

  static void* operator new(size_t num_bytes) { return PoolAllocate(num_bytes); }
  static void operator delete(void* frame, size_t num_bytes) { PoolFree(frame, num_bytes); }

  std::suspend_always initial_suspend() noexcept { return {}; }
  FinalAwaiter final_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept {
    try {
      throw;
    } catch (const std::exception& error) {
      CHECK(false, "an exception left a task: {}", error.what());
    } catch (...) {
      CHECK(false, "an exception left a task");
    }
  }
};

template <typename T>
struct Promise : PromiseBase {
  std::optional<T> value;

  Task<T> get_return_object() noexcept;
  template <typename U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  T Take() { return *std::move(value); }
};

template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() noexcept {}
  void Take() {}
};

}  // namespace task_internal

template <typename T>
class [[nodiscard]] Task {
 public:
  using promise_type = task_internal::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  Task() = default;
  explicit Task(Handle handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      Destroy();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ~Task() { Destroy(); }

  bool empty() const { return !handle_; }
  bool done() const { return handle_ && handle_.done(); }
  // For the one that drives a root task: Start once, then Take when done.
  void Start() { handle_.resume(); }
  T Take() {
    CHECK(done());
    return handle_.promise().Take();
  }

  auto operator co_await() && noexcept {
    struct Awaiter {
      Handle handle;
      bool await_ready() noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
        handle.promise().continuation = awaiting;
        return handle;
      }
      T await_resume() { return handle.promise().Take(); }
    };
    return Awaiter{handle_};
  }

 private:
  void Destroy() {
    if (handle_) std::exchange(handle_, nullptr).destroy();
  }

  Handle handle_;
};

namespace task_internal {

template <typename T>
Task<T> Promise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}

}  // namespace task_internal

// For callers that are no stream: runs a task that has nothing to wait for to its end.
template <typename T>
T RunStraight(Task<T> task) {
  task.Start();
  CHECK(task.done(), "a task waits that nobody would wake");
  return task.Take();
}

}  // namespace troupe
