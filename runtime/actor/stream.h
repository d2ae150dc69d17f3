// Stream: where arithmetic runs. What is launched runs one after the other in the order of Launch,
// off the scheduler's thread; each completion comes back to the scheduler as a closure.
//
//     stream.Launch([=] { MatMul(…); }, [this](const WorkTime& time) { … });
//     stream.LaunchTask(scope_, Attend(…), [this](const WorkTime& time, Status status) { … });
//
// A task may wait in its middle (StreamWait; stream_wait.h has those there are). It leaves the
// stream, whose thread is free for other work, and joins the end of the queue when it is woken. A
// wait that is over at once suspends nothing. Who launched it may be told of its waits.
//
// Thread: Launch, LaunchTask and `done` on the scheduler's thread, work on the stream's.
//   X1. `done` runs after its work, never inside Launch, in the order in which work ends.
//   X2. The destructor waits for the pieces that are launched or woken, not for tasks that wait:
//       those are destroyed. Completions not yet delivered are dropped.
//   X3. The scheduler outlives the stream.
//   X4. A task off the stream belongs to the scheduler's thread, which alone destroys tasks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/actor/pool.h"
#include "runtime/actor/runnable.h"
#include "runtime/actor/scheduler.h"
#include "runtime/actor/task.h"
#include "runtime/base/result.h"

namespace troupe {

struct WorkTime {
  int64_t start_ns = 0;  // of the machine's steady clock; of the scheduler's for an InlineStream
  int64_t end_ns = 0;
  int64_t ran_ns = 0;  // on the stream; what is missing from start to end are the task's waits
  int64_t cpu_ns = 0;  // what the work cost; the rest of ran_ns is waiting for a core
};

// One launched piece of work. Whenever it leaves the stream, at its end or to wait, it is posted to
// the scheduler as a Runnable.
struct StreamJob : Runnable {
  void (*run)(StreamJob*) = nullptr;
  WorkTime time;
  bool has_run = false;
};

class Stream;
class StreamScope;
class StreamWait;

namespace stream_internal {

struct TaskJob;

// What a stream, its jobs and its scopes share. Read and written on the scheduler's thread only.
struct StreamState {
  bool open = true;
  std::vector<TaskJob*> tasks{};  // alive
};

struct TaskJob : StreamJob {
  TaskJob(Stream& s, Task<Status> t, std::shared_ptr<StreamState> of_stream,
          std::shared_ptr<const bool> of_scope);
  ~TaskJob();
  bool wanted() const { return state->open && *scope; }
  // Destroys the frame and the completion; what is left is deleted when the scheduler comes to it.
  void (*abandon)(TaskJob*) = nullptr;
  // Tells who launched the task that it waits (true), and that it is back on the stream (false).
  void (*tell)(TaskJob*, bool waits) = nullptr;

  Stream& stream;
  Task<Status> task;
  std::coroutine_handle<> resume{};  // where it goes on; empty: at its start
  StreamWait* wait = nullptr;        // why it left the stream, before its end
  bool waiting = false;              // the wait has begun
  bool told = false;                 // of a wait that is not over
  const std::shared_ptr<StreamState> state;
  const std::shared_ptr<const bool> scope;
};

// Once it is back from the stream: begins its wait, or is done (true).
bool LeftStream(TaskJob& job);

}  // namespace stream_internal

class Stream {
 public:
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  virtual ~Stream();

  // work(), then done(const WorkTime&).
  template <typename Work, typename Done>
  void Launch(Work work, Done done) {
    Enqueue(new Job<Work, Done>(std::move(work), std::move(done), state_));
  }
  // The task, then done(const WorkTime&, Status), unless `scope` has ended. What the task refers to
  // outlives the stream: a piece that runs is not interrupted. on_wait(bool waits) is called on the
  // scheduler's thread when a wait that is not over at once begins (true) and when it ends (false);
  // it may not end the scope.
  template <typename Done, typename OnWait>
  void LaunchTask(const StreamScope& scope, Task<Status> task, Done done, OnWait on_wait);
  template <typename Done>
  void LaunchTask(const StreamScope& scope, Task<Status> task, Done done) {
    LaunchTask(scope, std::move(task), std::move(done), [](bool) {});
  }

  // Since when the piece under way runs (steady clock); 0: none does. Any thread.
  virtual int64_t busy_since_ns() const { return 0; }

 protected:
  // Takes the job over: runs it in order (RunStreamJob), then posts it to the scheduler.
  virtual void Enqueue(StreamJob* job) = 0;
  // The same for a job that was woken. On the scheduler's thread.
  virtual void Requeue(StreamJob* job) { Enqueue(job); }

 private:
  friend class StreamScope;
  friend class StreamWait;

  template <typename Work, typename Done>
  struct Job : StreamJob, Pooled {
    Job(Work w, Done d, std::shared_ptr<const stream_internal::StreamState> s)
        : work(std::move(w)), done(std::move(d)), state(std::move(s)) {
      run = [](StreamJob* self) { static_cast<Job*>(self)->work(); };
      act = [](Runnable* self, Fate fate) {
        auto* job = static_cast<Job*>(self);
        if (fate == Fate::kRun && job->state->open) job->done(std::as_const(job->time));
        delete job;
      };
    }
    Work work;
    Done done;
    std::shared_ptr<const stream_internal::StreamState> state;
  };

  std::shared_ptr<stream_internal::StreamState> state_ =
      std::make_shared<stream_internal::StreamState>();
};

// An actor's hold on its stream: what was launched with it ends with it. A task that waits is
// destroyed then, any other when its piece has run; no completion comes any more.
// Thread: the scheduler's. May outlive the stream.
class StreamScope {
 public:
  explicit StreamScope(Stream& stream) : state_(stream.state_) {}
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;
  ~StreamScope();

 private:
  friend class Stream;
  std::shared_ptr<stream_internal::StreamState> state_;
  std::shared_ptr<bool> open_ = std::make_shared<bool>(true);
};

template <typename Done, typename OnWait>
void Stream::LaunchTask(const StreamScope& scope, Task<Status> task, Done done, OnWait on_wait) {
  struct Completed : stream_internal::TaskJob, Pooled {
    struct Calls {
      Done done;
      OnWait on_wait;
    };
    Completed(Stream& s, Task<Status> t, const StreamScope& of, Calls c)
        : TaskJob(s, std::move(t), s.state_, of.open_), calls(std::move(c)) {
      abandon = [](TaskJob* self) {
        self->task = {};
        static_cast<Completed*>(self)->calls.reset();
      };
      tell = [](TaskJob* self, bool waits) {
        static_cast<Completed*>(self)->calls->on_wait(waits);
      };
      act = [](Runnable* self, Fate fate) {
        auto* job = static_cast<Completed*>(self);
        if (fate == Fate::kRun && job->wanted()) {
          if (!stream_internal::LeftStream(*job)) return;
          job->calls->done(std::as_const(job->time), job->task.Take());
        }
        delete job;
      };
    }
    std::optional<Calls> calls;
  };
  CHECK(scope.state_ == state_, "a task is launched with another stream's scope");
  Enqueue(new Completed(*this, std::move(task), scope, {std::move(done), std::move(on_wait)}));
}

// Base of what a stream's task may await.
//   await_ready    on the stream's thread: true where there is nothing to wait for
//   Begin          on the scheduler's thread, after the task has left the stream: arranges that
//                  Resume is called, or calls it
//   destructor     undoes Begin, where Resume was not called
class StreamWait {
 public:
  StreamWait() = default;
  StreamWait(const StreamWait&) = delete;
  StreamWait& operator=(const StreamWait&) = delete;

  void await_suspend(std::coroutine_handle<> handle);

 protected:
  ~StreamWait() = default;
  virtual void Begin() = 0;
  // Puts the task back on its stream. On the scheduler's thread, once; the wait may be gone when
  // it returns.
  void Resume();

 private:
  friend bool stream_internal::LeftStream(stream_internal::TaskJob& job);
  stream_internal::TaskJob* job_ = nullptr;
};

// A thread of its own. Sleeps when it has nothing to do, after `spin_us` of looking.
class ThreadStream : public Stream {
 public:
  ThreadStream(Scheduler& scheduler, std::string name, int64_t spin_us = 20);
  ~ThreadStream() override;
  // An error where the machine gives no thread: then work runs in Enqueue, and completions come as
  // they do otherwise.
  const Status& started() const { return started_; }
  int64_t busy_since_ns() const override { return busy_since_ns_.load(std::memory_order_relaxed); }

 protected:
  void Enqueue(StreamJob* job) override;

 private:
  void Loop();
  StreamJob* Next();

  Scheduler& scheduler_;
  const std::string name_;
  const int64_t spin_us_;
  std::mutex mutex_;
  std::condition_variable has_work_;
  RunQueue jobs_;
  std::atomic<int> num_jobs_{0};
  std::atomic<int64_t> busy_since_ns_{0};
  bool sleeping_ = false;
  bool stopping_ = false;
  std::thread thread_;
  Status started_{};
};

// Runs the work at once on the scheduler's thread; completions still come back as closures, and a
// task that was woken goes on as one. For deterministic tests.
class InlineStream : public Stream {
 public:
  explicit InlineStream(Scheduler& scheduler) : scheduler_(scheduler) {}
  ~InlineStream() override;

 protected:
  void Enqueue(StreamJob* job) override;
  void Requeue(StreamJob* job) override;

 private:
  Scheduler& scheduler_;
  std::shared_ptr<RunQueue> woken_ = std::make_shared<RunQueue>();
};

// Measures and runs a job's next piece on the calling thread, for implementations of Enqueue.
void RunStreamJob(StreamJob& job, Clock& clock);

}  // namespace troupe
