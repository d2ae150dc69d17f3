#include "runtime/actor/stream.h"

#include <pthread.h>

#include <utility>

#include "runtime/base/thread.h"

namespace troupe {

namespace {
constexpr int kLooksPerYield = 64;  // some microseconds
}  // namespace

namespace stream_internal {
namespace {
constinit thread_local TaskJob* running_task = nullptr;  // on this thread
}  // namespace

TaskJob::TaskJob(Stream& s, Task<Status> t, std::shared_ptr<StreamState> of_stream,
                 std::shared_ptr<const bool> of_scope)
    : stream(s), task(std::move(t)), state(std::move(of_stream)), scope(std::move(of_scope)) {
  run = [](StreamJob* self) {
    auto* job = static_cast<TaskJob*>(self);
    TaskJob* outer = std::exchange(running_task, job);
    if (const auto handle = std::exchange(job->resume, nullptr)) {
      handle.resume();
    } else {
      job->task.Start();
    }
    running_task = outer;
  };
  state->tasks.push_back(this);
}

TaskJob::~TaskJob() { std::erase(state->tasks, this); }

bool LeftStream(TaskJob& job) {
  if (job.wait == nullptr) {
    CHECK(job.task.done(), "a task of a stream awaits what no stream knows");
    return true;
  }
  job.waiting = true;
  job.wait->Begin();
  // Woken already, it is on the stream; it comes back, and may end, on this thread alone.
  if (job.waiting) {
    job.told = true;
    job.tell(&job, true);
  }
  return false;
}

}  // namespace stream_internal

Stream::~Stream() {
  state_->open = false;
  for (stream_internal::TaskJob* job : std::vector(state_->tasks)) {
    if (job->waiting) {
      job->act(job, Runnable::Fate::kDiscard);
    } else {
      job->abandon(job);  // it is on its way to the scheduler
    }
  }
}

StreamScope::~StreamScope() {
  *open_ = false;
  for (stream_internal::TaskJob* job : std::vector(state_->tasks)) {
    if (job->scope == open_ && job->waiting) job->act(job, Runnable::Fate::kDiscard);
  }
}

void StreamWait::await_suspend(std::coroutine_handle<> handle) {
  job_ = stream_internal::running_task;
  CHECK(job_ != nullptr, "only a task that a stream runs may wait so");
  job_->resume = handle;
  job_->wait = this;
}

void StreamWait::Resume() {
  stream_internal::TaskJob* job = job_;
  if (!job->wanted()) return;  // whoever ends its scope destroys it
  job->waiting = false;
  job->wait = nullptr;
  if (std::exchange(job->told, false)) job->tell(job, false);
  job->stream.Requeue(job);
}

void RunStreamJob(StreamJob& job, Clock& clock) {
  const int64_t start_ns = clock.NowNs();
  if (!std::exchange(job.has_run, true)) job.time.start_ns = start_ns;
  const int64_t cpu_start_ns = clock.ThreadCpuNs();
  job.run(&job);
  job.time.cpu_ns += clock.ThreadCpuNs() - cpu_start_ns;
  job.time.end_ns = clock.NowNs();
  job.time.ran_ns += job.time.end_ns - start_ns;
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
  for (int looks = 1;
       num_jobs_.load(std::memory_order_acquire) == 0 && SystemClock().NowNs() < spin_until_ns;
       ++looks) {
    // Where cores are few, to the thread that would bring work.
    if (looks % kLooksPerYield == 0) std::this_thread::yield();
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
    busy_since_ns_.store(SystemClock().NowNs(), std::memory_order_relaxed);
    RunStreamJob(*job, SystemClock());
    busy_since_ns_.store(0, std::memory_order_relaxed);
    scheduler_.PostRunnable(job);
  }
}

InlineStream::~InlineStream() {
  while (Runnable* job = woken_->PopFront()) job->act(job, Runnable::Fate::kDiscard);
}

void InlineStream::Enqueue(StreamJob* job) {
  RunStreamJob(*job, scheduler_.clock());
  scheduler_.PostRunnable(job);
}

// Whoever wakes a task does not run it.
void InlineStream::Requeue(StreamJob* job) {
  woken_->PushBack(job);
  scheduler_.Post([this, woken = woken_] {
    if (Runnable* next = woken->PopFront()) Enqueue(static_cast<StreamJob*>(next));
  });
}

}  // namespace troupe
