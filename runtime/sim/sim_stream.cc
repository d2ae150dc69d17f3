#include "runtime/sim/sim_stream.h"

namespace troupe {

SimStream::~SimStream() {
  if (running_ != nullptr) running_->act(running_, Runnable::Fate::kDiscard);
  while (Runnable* job = jobs_.PopFront()) job->act(job, Runnable::Fate::kDiscard);
}

void SimStream::Enqueue(StreamJob* job) {
  jobs_.PushBack(job);
  if (running_ == nullptr) Begin();
}

void SimStream::Begin() {
  running_ = static_cast<StreamJob*>(jobs_.PopFront());
  busy_since_ns_ = running_ == nullptr ? 0 : scheduler_.clock().NowNs();
  if (running_ == nullptr) return;
  (void)work_.Take();  // what was spent off the streams
  RunStreamJob(*running_, scheduler_.clock());
  const int64_t spent_ns = work_.Take();
  running_->time.end_ns += spent_ns;
  running_->time.ran_ns += spent_ns;
  running_->time.cpu_ns += spent_ns;
  driver_.At(running_->time.end_ns, [this, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.expired()) return;
    scheduler_.PostRunnable(std::exchange(running_, nullptr));
    Begin();
  });
}

}  // namespace troupe
