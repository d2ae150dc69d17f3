// OperationWatch: a wait that nobody but its own group knows of, on the wait board and with a
// deadline: what a device still has to do, when all members have begun it.
//
// Thread: the scheduler's, which outlives it.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "runtime/actor/scheduler.h"
#include "runtime/collective/group.h"

namespace troupe {

class OperationWatch : private TimerNode {
 public:
  // `on_deadline` may end the watch, or its life.
  OperationWatch(Scheduler& scheduler, const GroupSpec& spec, std::string_view waiter,
                 std::function<void(Error)> on_deadline);
  ~OperationWatch() { End(); }
  OperationWatch(const OperationWatch&) = delete;
  OperationWatch& operator=(const OperationWatch&) = delete;

  // `of`: "group dp: all-reduce 17 of 1024 float32"; `owed`: "its end on the device", a literal.
  // Told of after the group's tell_ms; passed deadline_ms after since_ns.
  void Begin(std::string of, std::string_view owed, const GroupPurpose& purpose, int64_t since_ns);
  void End();

 private:
  Scheduler& scheduler_;
  const GroupSpec& spec_;
  const std::string_view waiter_;  // "rank 3"
  const std::function<void(Error)> on_deadline_;
  std::string text_{};
  WaitSubject subject_{};
  WaitHandle record_{};
};

}  // namespace troupe
