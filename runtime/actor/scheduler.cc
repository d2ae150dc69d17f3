#include "runtime/actor/scheduler.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "runtime/actor/actor_base.h"

namespace troupe {
namespace {

// How much is run between two looks at the clock, the inbox and the pollers.
constexpr int kRunnablesPerPass = 64;
// How often an idle loop looks at the cheap pollers between two passes, which look at the clock.
constexpr int kPollsPerSpin = 32;

void Watch(int epoll_fd, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl: {}", std::strerror(errno));
}

void SpinHint() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Scheduler::Scheduler(SchedulerOptions options)
    : options_(options),
      now_ns_(options.clock->NowNs()),
      wheel_(now_ns_),
      waits_(wheel_, now_ns_),
      epoll_fd_(epoll_create1(EPOLL_CLOEXEC)),
      wake_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  CHECK(epoll_fd_ >= 0 && wake_fd_ >= 0, "epoll: {}", std::strerror(errno));
  Watch(epoll_fd_, wake_fd_);
}

Scheduler::~Scheduler() {
  {
    actor_internal::CurrentScope scope(this);
    on_down_ = [](const Down&) {};
    for (ActorCell& cell : cells_) {
      if (cell.alive()) EndCell(&cell, nullptr);
    }
    // What the dying left behind: closures, messages on their way. Freed, not run.
    for (;;) {
      Runnable* item = ready_.PopFront();
      if (item == nullptr) {
        Runnable* arrived = inbox_.TakeAll();
        if (arrived == nullptr) break;
        while (arrived != nullptr) ready_.PushBack(std::exchange(arrived, arrived->next));
        continue;
      }
      item->act(item, Runnable::Fate::kDiscard);
    }
    for (ClosureTimer& timer : closure_timers_) wheel_.Cancel(&timer);
  }
  close(wake_fd_);
  close(epoll_fd_);
}

void Scheduler::PostRunnable(Runnable* runnable) {
  if (!inbox_.Push(runnable)) return;
  const uint64_t one = 1;
  // The counter cannot overflow: one write for every time the owner parked.
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

void Scheduler::Stop() {
  Post([this] { stopping_ = true; });
}

TimerId Scheduler::After(int64_t delay_ms, std::function<void()> function) {
  ClosureTimer* timer;
  if (free_timers_.empty()) {
    timer = &closure_timers_.emplace_back();
    timer->scheduler = this;
    timer->slot = static_cast<uint32_t>(closure_timers_.size() - 1);
    timer->fire = [](TimerNode* node) {
      auto* fired = static_cast<ClosureTimer*>(node);
      auto run = std::move(fired->function);
      ++fired->generation;
      fired->scheduler->free_timers_.push_back(fired);
      run();
    };
  } else {
    timer = free_timers_.back();
    free_timers_.pop_back();
  }
  timer->function = std::move(function);
  // Not the time of the pass: the running handler may have taken long before it asks.
  wheel_.Arm(timer, options_.clock->NowNs() + delay_ms * TimerWheel::kTickNs);
  return {timer->slot, timer->generation};
}

bool Scheduler::Cancel(TimerId id) {
  if (id.generation == 0 || id.slot >= closure_timers_.size()) return false;
  ClosureTimer& timer = closure_timers_[id.slot];
  if (timer.generation != id.generation || !timer.armed()) return false;
  wheel_.Cancel(&timer);
  timer.function = nullptr;
  ++timer.generation;
  free_timers_.push_back(&timer);
  return true;
}

PollerId Scheduler::AddPoller(std::function<int()> progress, int fd, std::function<bool()> arm,
                              Polling polling) {
  if (fd >= 0) Watch(epoll_fd_, fd);
  pollers_.push_back(
      std::make_unique<Poller>(Poller{fd, std::move(progress), std::move(arm), polling}));
  return {static_cast<int>(pollers_.size()) - 1};
}

void Scheduler::RemovePoller(PollerId id) {
  Poller& poller = *pollers_[static_cast<size_t>(id.value)];
  if (poller.removed) return;
  // The slot stays: ids are indices, and a poller may remove itself while it runs.
  poller.removed = true;
  if (poller.fd >= 0) epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, poller.fd, nullptr);
}

int Scheduler::ProgressPollers(Polling asked) {
  int events = 0;
  for (size_t i = 0; i < pollers_.size(); ++i) {  // one may add another
    Poller& poller = *pollers_[i];
    if (!poller.removed && poller.polling >= asked) events += poller.progress();
  }
  return events;
}

int Scheduler::TakeInbox() {
  int taken = 0;
  Runnable* item = inbox_.TakeAll();
  while (item != nullptr) {
    Runnable* next = item->next;
    ready_.PushBack(item);
    item = next;
    ++taken;
  }
  return taken;
}

int Scheduler::RunReady(int limit) {
  int ran = 0;
  while (ran < limit) {
    Runnable* item = ready_.PopFront();
    if (item == nullptr) break;
    const bool turn = item->act == &Scheduler::RunCell;
    item->act(item, Runnable::Fate::kRun);
    handler_start_known_ = handler_start_known_ && turn;
    ++ran;
  }
  return ran;
}

int Scheduler::Pass() {
  now_ns_ = options_.clock->NowNs();
  handler_start_known_ = false;
  int work = wheel_.Advance(now_ns_);
  work += TakeInbox();
  work += RunReady(kRunnablesPerPass);
  work += ProgressPollers(Polling::kEveryPass);
  return work > 0 || !ready_.empty() ? work + 1 : 0;
}

// Waits for work a little without looking at the clock, and does at once what came of it, as long
// as more comes: reading the clock takes a third of the time in which a small message crosses to
// another process. Between two polls it leaves the core's units to the other hardware
// thread, which may be whom it waits for.
int Scheduler::Spin() {
  int work = 0;
  int ran = 0;
  for (int idle = 0; idle < kPollsPerSpin && ran < kRunnablesPerPass && inbox_.Empty(); ++idle) {
    const int events = ProgressPollers(Polling::kSpinning);
    if (events == 0) {
      SpinHint();
      continue;
    }
    handler_start_known_ = false;
    ran += 1 + RunReady(kRunnablesPerPass - ran);
    work += events;
    idle = 0;
  }
  return work;
}

int64_t Scheduler::RunUntilIdle() {
  actor_internal::CurrentScope scope(this);
  ring_ = &ThreadTraceRing();
  int64_t total = 0;
  while (const int work = Pass()) {
    total += work;
  }
  return total;
}

void Scheduler::Run() {
  actor_internal::CurrentScope scope(this);
  ring_ = &ThreadTraceRing();
  int64_t idle_since_ns = 0;
  while (!stopping_) {
    if (Pass() > 0) {
      idle_since_ns = 0;
      continue;
    }
    if (idle_since_ns == 0) idle_since_ns = now_ns_;
    if (now_ns_ - idle_since_ns < options_.spin_us * 1000) {
      if (Spin() > 0) {
        idle_since_ns = 0;
      } else {
        std::this_thread::yield();  // where cores are few, to whoever would bring work
      }
      continue;
    }
    if (!PrepareToSleep()) continue;
    Sleep();
    AwakeFromSleep();
    idle_since_ns = 0;
  }
  stopping_ = false;
}

bool Scheduler::PrepareToSleep() {
  if (!ready_.empty()) return false;
  for (const auto& poller : pollers_) {
    if (!poller->removed && poller->arm && !poller->arm()) return false;
  }
  return inbox_.TryPark();
}

void Scheduler::AwakeFromSleep() {
  inbox_.Unpark();
  uint64_t count;
  [[maybe_unused]] const ssize_t got = read(wake_fd_, &count, sizeof(count));
}

int64_t Scheduler::SleepLimitMs() const {
  const bool blind = std::any_of(pollers_.begin(), pollers_.end(),
                                 [](const auto& p) { return !p->removed && p->fd < 0; });
  const int64_t deadline_ns = wheel_.NextDeadlineNs();
  int64_t limit_ms = blind ? 1 : -1;
  if (deadline_ns != TimerWheel::kNever) {
    // Rounded up: waking before the tick would only spin until it.
    const int64_t rest_ns = std::max<int64_t>(deadline_ns - options_.clock->NowNs(), 0);
    const int64_t rest_ms = std::min<int64_t>((rest_ns + 999'999) / 1'000'000, 60'000);
    limit_ms = limit_ms < 0 ? rest_ms : std::min(limit_ms, rest_ms);
  }
  return limit_ms;
}

void Scheduler::Sleep() {
  ++counters_.sleeps;
  epoll_event events[16];
  epoll_wait(epoll_fd_, events, 16, static_cast<int>(SleepLimitMs()));
}

}  // namespace troupe
