// A stream for passes that wait for nobody: each has ended when Run returns. Used where a model's
// work is timed, with stand-ins for its peers (still_peers.h).
#pragma once

#include <optional>
#include <utility>

#include "runtime/actor/scheduler.h"
#include "runtime/actor/stream.h"
#include "runtime/actor/task.h"
#include "runtime/base/check.h"
#include "runtime/base/result.h"

namespace troupe {

// All of it on the caller's thread.
class LoneStream {
 public:
  // Task<Status>, or Task<Result<…>>, whose result is dropped.
  template <typename T>
  void Run(Task<T> task) {
    std::optional<Status> end;
    stream_.LaunchTask(scope_, WithoutResult(std::move(task)),
                       [&end](const WorkTime&, Status status) { end = std::move(status); });
    scheduler_.RunUntilIdle();
    CHECK(end.has_value() && end->ok(), "a pass that waits for nobody has not ended well");
  }

 private:
  template <typename T>
  static Task<Status> WithoutResult(Task<Result<T>> task) {
    const Result<T> result = co_await std::move(task);
    if (!result.ok()) co_return result.error();
    co_return Status{};
  }
  static Task<Status> WithoutResult(Task<Status> task) { return task; }

  Scheduler scheduler_{{.spin_us = 0, .trace_handlers = false}};
  InlineStream stream_{scheduler_};
  StreamScope scope_{stream_};
};

}  // namespace troupe
