// Scheduler: the one thread of a worker for actors and message progress. Owns the actors, the run
// queue, the timer wheel, the wait board and the pollers (transports, sockets).
//
// Thread: Run and RunUntilIdle bind it to the calling thread; everything else belongs there, but
// Post, Stop and ActorRef::Send, which any thread may call.
//
//   C1. One message at a time per actor: while a handler is suspended, its actor takes no other.
//   C2. A turn handles at most kMessagesPerTurn messages, so no actor starves the others.
//   C3. It sleeps only when nothing is ready, every poller is armed and the inbox is parked.
//   C4. Time comes from the clock alone: on a virtual clock RunUntilIdle runs what is due and
//       returns, and NextDeadlineNs says how far the simulator may advance.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/actor/actor_cell.h"
#include "runtime/actor/actor_ref.h"
#include "runtime/actor/inbox.h"
#include "runtime/actor/supervision.h"
#include "runtime/actor/timer_wheel.h"
#include "runtime/actor/wait_record.h"
#include "runtime/base/clock.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/trace/span.h"

namespace troupe {

struct TimerId {
  uint32_t slot = 0;
  uint32_t generation = 0;  // 0: no timer
};

struct PollerId {
  int value = -1;
};

// When a poller is asked.
enum class Polling : uint8_t {
  kEveryPass,  // its progress costs a system call
  kSpinning,   // cheap: again and again too, while an idle Run waits for work before it sleeps
};

struct SchedulerOptions {
  Clock* clock = &SystemClock();
  Rank rank;                   // for spans
  int64_t spin_us = 50;        // idle time before Run arms the pollers and sleeps
  bool trace_handlers = true;  // a span for every handled message
};

class Scheduler {
 public:
  static constexpr int kMessagesPerTurn = 64;

  explicit Scheduler(SchedulerOptions options = {});
  ~Scheduler();  // ends all actors, children first; no other thread may still send
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // The scheduler whose loop runs on this thread, or null.
  static Scheduler* Current() { return actor_internal::current_scheduler; }

  // Creates the actor at once; its first message comes after this returns. Where OnStart fails, the
  // reference is stale already.
  template <typename A, typename... Args>
  typename A::SelfRef Spawn(const SpawnOptions& options, Args&&... args) {
    return SpawnChild<A>(nullptr, options, std::forward<Args>(args)...);
  }
  template <typename A, typename... Args>
  typename A::SelfRef SpawnChild(ActorCell* parent, const SpawnOptions& options, Args&&... args);

  // The living actor of that name, if it takes all of M....
  template <typename... M>
  Result<ActorRef<M...>> Find(std::string_view name);

  // Ends an actor normally: no Down. A running handler of it finishes first.
  template <typename... M>
  void End(ActorRef<M...> actor) {
    if (actor.alive()) EndCell(actor.cell(), nullptr);
  }

  // Runs until Stop. Needs a clock that advances by itself.
  void Run();
  // Runs everything that is ready or due, and returns how much that was.
  int64_t RunUntilIdle();
  void Stop();  // any thread

  // Any thread: runs `function` on the scheduler's thread, soon.
  template <typename F>
  void Post(F function) {
    PostRunnable(MakeRunnable(std::move(function)));
  }
  void PostRunnable(Runnable* runnable);

  TimerId After(int64_t delay_ms, std::function<void()> function);
  bool Cancel(TimerId timer);  // false: it has fired or was cancelled

  // `progress` does what is pending and returns how much that was; `fd` becomes readable when
  // there is something (-1: none, then an idle scheduler looks every millisecond); `arm` returns
  // false if there already is something.
  PollerId AddPoller(std::function<int()> progress, int fd, std::function<bool()> arm,
                     Polling polling = Polling::kEveryPass);
  void RemovePoller(PollerId poller);

  int64_t NextDeadlineNs() const { return wheel_.NextDeadlineNs(); }
  // The time of the current pass: at most one pass and the spinning after it old, free to read.
  int64_t now_ns() const { return now_ns_; }
  Clock& clock() const { return *options_.clock; }
  const SchedulerOptions& options() const { return options_; }
  WaitBoard& waits() { return waits_; }
  TimerWheel& timers() { return wheel_; }

  // The root supervisor. Without one, Down is printed to stderr.
  void SetOnDown(std::function<void(const Down&)> on_down) { on_down_ = std::move(on_down); }

  struct Counters {
    int64_t messages = 0;  // handled
    int64_t sleeps = 0;
  };
  const Counters& counters() const { return counters_; }

  // For awaitables (await.h): the actor whose handler runs now, and how it goes on.
  ActorCell* current_cell() const { return current_cell_; }
  void MakeReady(Runnable* runnable) { ready_.PushBack(runnable); }
  void Unready(Runnable* runnable) { ready_.Remove(runnable); }
  void ResumeIn(ActorCell* cell, std::coroutine_handle<> handle);
  // A handler on the stack finishes first; `error` null is a normal end.
  void EndCell(ActorCell* cell, const Error* error);

 private:
  friend Status actor_internal::SendFromOutside(ActorCell* cell, MessageNode* node);

  struct ClosureTimer : TimerNode {
    Scheduler* scheduler = nullptr;
    uint32_t slot = 0;
    uint32_t generation = 1;
    std::function<void()> function;
  };
  struct Poller {
    int fd = -1;
    std::function<int()> progress;
    std::function<bool()> arm;
    Polling polling = Polling::kEveryPass;
    bool removed = false;
  };

  using Factory = std::function<std::unique_ptr<ActorBase>()>;
  ActorCell* NewCell(ActorCell* parent, const SpawnOptions& options);
  void Populate(ActorCell* cell, const Factory& factory);
  Result<ActorCell*> FindCell(std::string_view name, std::initializer_list<const MessageType*> all);
  void EndChildren(ActorCell* cell);
  void ClearIncarnation(ActorCell* cell);
  void DeliverDown(const SupervisorLink& supervisor, Down down);

  static void RunCell(Runnable* self, Runnable::Fate fate);
  void Turn(ActorCell* cell);
  bool HandleOne(ActorCell* cell, MessageNode* node);
  bool Conclude(ActorCell* cell, Status status);
  void EndWith(ActorCell* cell, Status status);
  void StartHandlerSpan();
  void TraceHandled(ActorCell* cell, const MessageType& type);
  static void DeliverFromOutside(Runnable* self, Runnable::Fate fate);

  int RunReady(int limit);
  int TakeInbox();
  int Pass();
  int Spin();
  int ProgressPollers(Polling asked);
  int64_t SleepLimitMs() const;
  bool PrepareToSleep();
  void AwakeFromSleep();
  void Sleep();

  SchedulerOptions options_;
  int64_t now_ns_;
  RunQueue ready_;
  Inbox inbox_;
  TimerWheel wheel_;
  WaitBoard waits_;
  std::deque<ActorCell> cells_;
  std::vector<ActorCell*> free_cells_;
  std::unordered_map<std::string, ActorCell*> directory_;
  std::deque<ClosureTimer> closure_timers_;
  std::vector<ClosureTimer*> free_timers_;
  std::vector<std::unique_ptr<Poller>> pollers_;
  std::function<void(const Down&)> on_down_;
  ActorCell* current_cell_ = nullptr;
  TraceRing* ring_ = nullptr;  // of the thread that runs now
  int64_t handler_start_ns_ = 0;
  bool handler_start_known_ = false;
  Counters counters_;
  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  bool stopping_ = false;
};

template <typename A, typename... Args>
typename A::SelfRef Scheduler::SpawnChild(ActorCell* parent, const SpawnOptions& options,
                                          Args&&... args) {
  ActorCell* cell = NewCell(parent, options);
  // Taken now: an actor that ends in OnStart leaves its cell to the next one.
  const Incarnation incarnation(cell->incarnation.load(std::memory_order_relaxed));
  // Run at once, so the arguments may be moved although std::function asks for a copyable body.
  Populate(cell, [&]() -> std::unique_ptr<ActorBase> {
    return std::make_unique<A>(std::forward<Args>(args)...);
  });
  return typename A::SelfRef(cell, incarnation);
}

template <typename... M>
Result<ActorRef<M...>> Scheduler::Find(std::string_view name) {
  auto cell = FindCell(name, {&kMessageType<M>...});
  if (!cell.ok()) return std::move(cell).error();
  return ActorRef<M...>(*cell, Incarnation((*cell)->incarnation.load(std::memory_order_relaxed)));
}

}  // namespace troupe
