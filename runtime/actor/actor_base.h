// ActorBase: what the scheduler knows of every actor. Derive from Actor<Derived, M...> (actor.h).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>

#include "runtime/actor/actor_cell.h"
#include "runtime/actor/scheduler.h"

namespace troupe {

class ActorBase {
 public:
  virtual ~ActorBase() = default;
  ActorBase(const ActorBase&) = delete;
  ActorBase& operator=(const ActorBase&) = delete;

  // Called once, after construction and before the first message; an error ends the actor.
  virtual Status OnStart() { return {}; }

  // Either handles the message and returns its status, or hands back an unstarted coroutine.
  virtual Status Receive(MessageNode& node, Task<Status>& task) = 0;
  virtual std::span<const MessageType* const> TakenMessages() const = 0;
  virtual bool IsNormalEnding(ErrorCode code) const = 0;

 protected:
  ActorBase();  // only inside Spawn

  ActorCell* cell() const { return cell_; }

 private:
  ActorCell* cell_;
};

// What an actor may do besides sending. A view of its cell; valid while the actor lives.
class ActorContext {
 public:
  explicit ActorContext(ActorCell* cell) : cell_(cell) {}

  const std::string& name() const { return cell_->name; }
  Incarnation incarnation() const { return Incarnation(cell_->incarnation.load()); }
  // Messages that its mailbox has let go to make room for newer ones (Overflow::kDropOldest).
  int64_t num_dropped() const { return cell_->mailbox.num_dropped(); }
  Scheduler& scheduler() const { return *cell_->scheduler; }
  Clock& clock() const { return scheduler().clock(); }
  int64_t now_ns() const { return scheduler().now_ns(); }

  // A child ends with this actor, before it.
  template <typename A, typename... Args>
  auto Spawn(const SpawnOptions& options, Args&&... args) const {
    return scheduler().template SpawnChild<A>(cell_, options, std::forward<Args>(args)...);
  }

  // Runs unless the actor has ended by then, so `function` may use `this`. It runs between
  // messages of the scheduler, even while a handler of this actor is suspended.
  TimerId After(int64_t delay_ms, std::function<void()> function) const;
  bool Cancel(TimerId timer) const { return scheduler().Cancel(timer); }

  WaitHandle BeginWait(const WaitSubject& subject) const {
    return scheduler().waits().Begin(subject);
  }

  // Ends this actor normally: once the running handler has returned, or at once where none of its
  // handlers runs (from a timer); a suspended one is destroyed.
  void End() const { scheduler().EndCell(cell_, nullptr); }

 private:
  ActorCell* cell_;
};

}  // namespace troupe
