#include "runtime/collective/nccl/operation_watch.h"

#include <utility>

namespace troupe {

OperationWatch::OperationWatch(Scheduler& scheduler, const GroupSpec& spec, std::string_view waiter,
                               std::function<void(Error)> on_deadline)
    : scheduler_(scheduler), spec_(spec), waiter_(waiter), on_deadline_(std::move(on_deadline)) {
  fire = [](TimerNode* timer) {
    auto* watch = static_cast<OperationWatch*>(timer);
    watch->subject_.deadline_ms = watch->spec_.deadline_ms;
    const auto on_deadline = watch->on_deadline_;  // its watch may be gone when it returns
    on_deadline(Error{ErrorCode::kDeadlineExceeded, DeadlineSentence(watch->subject_)});
  };
}

void OperationWatch::Begin(std::string of, std::string_view owed, const GroupPurpose& purpose,
                           int64_t since_ns) {
  text_ = std::move(of);
  subject_ = {.waiter = waiter_,
              .activity = text_,
              .owed = owed,
              .step = purpose.step,
              .microbatch = purpose.microbatch,
              .deadline_ms = spec_.tell_ms,
              .detail = [](const void*) { return std::string("all members have begun it"); }};
  record_ = scheduler_.waits().Begin(subject_);
  if (spec_.deadline_ms <= 0) return;
  scheduler_.timers().Arm(this, since_ns + spec_.deadline_ms * TimerWheel::kTickNs);
}

void OperationWatch::End() {
  record_.Reset();
  scheduler_.timers().Cancel(this);
}

}  // namespace troupe
