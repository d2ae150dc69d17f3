// Stream: where arithmetic runs. Closures run one after the other in the order of Launch, off the
// scheduler's thread; each completion comes back to the scheduler as a closure.
//
//     stream.Launch([=] { MatMul(…); }, [this](const WorkTime& time) { … });
//
// Thread: Launch and `done` on the scheduler's thread, `work` on the stream's.
//   X1. `done` runs after its `work`, never inside Launch, in the order of Launch.
//   X2. The destructor waits for all launched work; completions not yet delivered are dropped.
//   X3. The scheduler outlives the stream.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "runtime/actor/pool.h"
#include "runtime/actor/runnable.h"
#include "runtime/actor/scheduler.h"
#include "runtime/base/result.h"

namespace troupe {

struct WorkTime {
  int64_t start_ns = 0;  // of the machine's steady clock; of the scheduler's for an InlineStream
  int64_t end_ns = 0;
  int64_t cpu_ns = 0;  // what the action cost; the rest is waiting for a core
};

// One launched piece of work. After it ran, it is posted to the scheduler as a Runnable.
struct StreamJob : Runnable {
  void (*run)(StreamJob*) = nullptr;
  WorkTime time;
};

class Stream {
 public:
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  virtual ~Stream() { *open_ = false; }

  // work(), then done(const WorkTime&).
  template <typename Work, typename Done>
  void Launch(Work work, Done done) {
    Enqueue(new Job<Work, Done>(std::move(work), std::move(done), open_));
  }

 protected:
  // Takes the job over: runs it in order, fills in its time and posts it to the scheduler.
  virtual void Enqueue(StreamJob* job) = 0;

 private:
  template <typename Work, typename Done>
  struct Job : StreamJob, Pooled {
    Job(Work w, Done d, std::shared_ptr<const bool> o)
        : work(std::move(w)), done(std::move(d)), open(std::move(o)) {
      run = [](StreamJob* self) { static_cast<Job*>(self)->work(); };
      act = [](Runnable* self, Fate fate) {
        auto* job = static_cast<Job*>(self);
        if (fate == Fate::kRun && *job->open) job->done(std::as_const(job->time));
        delete job;
      };
    }
    Work work;
    Done done;
    std::shared_ptr<const bool> open;  // read on the scheduler's thread only
  };

  std::shared_ptr<bool> open_ = std::make_shared<bool>(true);
};

// A thread of its own. Sleeps when it has nothing to do, after `spin_us` of looking.
class ThreadStream : public Stream {
 public:
  ThreadStream(Scheduler& scheduler, std::string name, int64_t spin_us = 20);
  ~ThreadStream() override;
  // An error where the machine gives no thread: then work runs in Enqueue, and completions come as
  // they do otherwise.
  const Status& started() const { return started_; }

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
  bool sleeping_ = false;
  bool stopping_ = false;
  std::thread thread_;
  Status started_{};
};

// Runs the work at once on the scheduler's thread; completions still come back as closures. For
// deterministic tests.
class InlineStream : public Stream {
 public:
  explicit InlineStream(Scheduler& scheduler) : scheduler_(scheduler) {}

 protected:
  void Enqueue(StreamJob* job) override;

 private:
  Scheduler& scheduler_;
};

// Measures and runs one job on the calling thread, for implementations of Enqueue.
void RunStreamJob(StreamJob& job, Clock& clock);

}  // namespace troupe
