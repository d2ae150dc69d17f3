#include "runtime/actor/task.h"

#include <gtest/gtest.h>

#include "runtime/base/result.h"

namespace troupe {
namespace {

Task<int> Value(int value) { co_return value; }

Task<int> Sum(int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) sum += co_await Value(i);
  co_return sum;
}

Task<int> Nested(int depth) {
  if (depth == 0) co_return 0;
  co_return 1 + co_await Nested(depth - 1);
}

struct Manual {
  std::coroutine_handle<>* slot;
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) { *slot = handle; }
  void await_resume() const {}
};

TEST(Task, IsLazy) {
  bool ran = false;
  auto body = [&]() -> Task<> {
    ran = true;
    co_return;
  };
  Task<> task = body();
  EXPECT_FALSE(ran);
  task.Start();
  EXPECT_TRUE(ran);
  EXPECT_TRUE(task.done());
}

TEST(Task, PassesValuesAndErrors) {
  Task<int> sum = Sum(10);
  sum.Start();
  ASSERT_TRUE(sum.done());
  EXPECT_EQ(sum.Take(), 45);

  auto failing = []() -> Task<Status> {
    auto inner = []() -> Task<Status> { co_return MakeError(ErrorCode::kIo, "no bytes"); };
    CO_RETURN_IF_ERROR(co_await inner());
    co_return Status{};
  };
  Task<Status> task = failing();
  task.Start();
  Status status = task.Take();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "no bytes");
}

// A loop over tasks that finish at once must not grow the stack.
TEST(Task, LongLoopsKeepTheStackFlat) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "g++ 12 makes no tail calls under a sanitizer, so symmetric transfer nests there";
#endif
  Task<int> sum = Sum(100'000);
  sum.Start();
  ASSERT_TRUE(sum.done());
  EXPECT_EQ(sum.Take(), 704'982'704);  // 100000 * 99999 / 2 modulo 2^32
}

TEST(Task, ReturnsThroughAChain) {
  Task<int> task = Nested(100);
  task.Start();
  EXPECT_EQ(task.Take(), 100);
}

TEST(Task, DestroysWhatASuspendedFrameHolds) {
  auto held = std::make_shared<int>(1);
  std::coroutine_handle<> slot;
  {
    auto body = [](std::shared_ptr<int> kept, std::coroutine_handle<>* s) -> Task<> {
      auto inner = [](std::shared_ptr<int> k, std::coroutine_handle<>* s2) -> Task<> {
        co_await Manual{s2};
        k.reset();
      };
      co_await inner(kept, s);
    };
    Task<> task = body(held, &slot);
    task.Start();
    EXPECT_FALSE(task.done());
    EXPECT_GT(held.use_count(), 1);
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(Task, ResumesItsAwaiter) {
  std::coroutine_handle<> slot;
  auto body = [](std::coroutine_handle<>* s) -> Task<int> {
    co_await Manual{s};
    co_return 7;
  };
  auto outer = [&]() -> Task<int> { co_return co_await body(&slot) + 1; };
  Task<int> task = outer();
  task.Start();
  ASSERT_FALSE(task.done());
  slot.resume();
  ASSERT_TRUE(task.done());
  EXPECT_EQ(task.Take(), 8);
}

TEST(TaskDeathTest, AnEscapingExceptionAborts) {
  auto body = []() -> Task<> {
    throw std::runtime_error("broken");
    co_return;
  };
  EXPECT_DEATH(
      {
        Task<> task = body();
        task.Start();
      },
      "an exception left a task: broken");
}

}  // namespace
}  // namespace troupe
