#include "runtime/actor/stream.h"

#include <pthread.h>

#include <utility>

#include "runtime/base/thread.h"

namespace troupe {

void RunStreamJob(StreamJob& job, Clock& clock) {
  job.time.start_ns = clock.NowNs();
  const int64_t cpu_start_ns = clock.ThreadCpuNs();
  job.run(&job);
  job.time.cpu_ns = clock.ThreadCpuNs() - cpu_start_ns;
  job.time.end_ns = clock.NowNs();
}

ThreadStream::ThreadStream(Scheduler& scheduler, std::string name, int64_t spin_us)
    : scheduler_(scheduler), name_(std::move(name)), spin_us_(spin_us) {
  auto thread = StartThread("stream " + name_, [this] { Loop(); });
  if (!thread.ok()) {
    started_ = std::move(thread).error();
    return;
  }
  thread_ = *std::move(thread);
}

ThreadStream::~ThreadStream() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  has_work_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void ThreadStream::Enqueue(StreamJob* job) {
  if (!started_.ok()) {
    RunStreamJob(*job, SystemClock());
    return scheduler_.PostRunnable(job);
  }
  bool wake;
  {
    std::lock_guard lock(mutex_);
    jobs_.PushBack(job);
    wake = sleeping_;
  }
  num_jobs_.fetch_add(1, std::memory_order_release);
  if (wake) has_work_.notify_one();
}

// The oldest job, or null once the stream stops and is empty.
StreamJob* ThreadStream::Next() {
  const int64_t spin_until_ns = SystemClock().NowNs() + spin_us_ * 1000;
  while (num_jobs_.load(std::memory_order_acquire) == 0 && SystemClock().NowNs() < spin_until_ns) {
  }
  std::unique_lock lock(mutex_);
  sleeping_ = true;
  has_work_.wait(lock, [this] { return !jobs_.empty() || stopping_; });
  sleeping_ = false;
  Runnable* job = jobs_.PopFront();
  if (job != nullptr) num_jobs_.fetch_sub(1, std::memory_order_relaxed);
  return static_cast<StreamJob*>(job);
}

void ThreadStream::Loop() {
  pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
  while (StreamJob* job = Next()) {
    RunStreamJob(*job, SystemClock());
    scheduler_.PostRunnable(job);
  }
}

void InlineStream::Enqueue(StreamJob* job) {
  RunStreamJob(*job, scheduler_.clock());
  scheduler_.PostRunnable(job);
}

}  // namespace troupe
