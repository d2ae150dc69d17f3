// Request and reply. A request message has a member `Reply<R> reply`; who handles it calls
// reply.Send(value) or reply.Fail(error), at once or later, from any scheduler. The asker gets
// exactly one of: the value, the error, kDeadlineExceeded, kPeerDown (the reply was dropped
// unanswered: its actor ended or forgot it).
//
//     struct Lookup { std::string name; Reply<int> reply; };
//     Result<int> value = co_await Ask(directory, Lookup{"a", {}}, 1000);   // in a coroutine
//     request.reply = ReplyTo<int>([](Result<int> value) { … });            // elsewhere
//
// Thread: Reply moves freely between threads; its callback runs on the asker's scheduler.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "runtime/actor/actor_ref.h"
#include "runtime/actor/await.h"
#include "runtime/actor/scheduler.h"
#include "runtime/actor/task.h"
#include "runtime/base/result.h"

namespace troupe {

// Move-only. An empty Reply ignores what it is given.
template <typename R>
class Reply {
 public:
  using Value = R;
  using Callback = std::function<void(Result<R>)>;

  Reply() = default;
  Reply(Scheduler* asker, Callback callback) : asker_(asker), callback_(std::move(callback)) {}
  Reply(Reply&& other) noexcept
      : asker_(std::exchange(other.asker_, nullptr)),
        callback_(std::exchange(other.callback_, nullptr)) {}
  Reply& operator=(Reply&& other) noexcept {
    if (this != &other) {
      Drop();
      asker_ = std::exchange(other.asker_, nullptr);
      callback_ = std::exchange(other.callback_, nullptr);
    }
    return *this;
  }
  ~Reply() { Drop(); }

  void Send(R value) { Give(Result<R>(std::move(value))); }
  void Fail(Error error) { Give(Result<R>(std::move(error))); }
  void Give(Result<R> result) {
    auto callback = std::exchange(callback_, nullptr);
    if (!callback) return;
    if (Scheduler::Current() == asker_) {
      callback(std::move(result));
    } else {
      asker_->Post([callback = std::move(callback), result = std::move(result)]() mutable {
        callback(std::move(result));
      });
    }
  }
  bool pending() const { return callback_ != nullptr; }

 private:
  void Drop() {
    if (callback_) Fail(MakeError(ErrorCode::kPeerDown, "the request was dropped unanswered"));
  }

  Scheduler* asker_ = nullptr;
  Callback callback_;
};

// A reply to the current scheduler, for those who are not coroutines.
template <typename R>
Reply<R> ReplyTo(std::function<void(Result<R>)> callback) {
  CHECK(Scheduler::Current() != nullptr, "a reply needs a scheduler to come back to");
  return Reply<R>(Scheduler::Current(), std::move(callback));
}

namespace ask_internal {

// Between the asker's frame and the reply, which may outlive each other. Owned by the asker's
// thread alone: the reply reaches it only through Give on that thread.
template <typename R>
struct Exchange {
  std::optional<Result<R>> result;
  Suspension* waiting = nullptr;  // in the asker's frame; null before and after
};

template <typename R>
class Answer : private TimerNode {
 public:
  Answer(std::shared_ptr<Exchange<R>> exchange, int64_t deadline_ms, std::string peer)
      : exchange_(std::move(exchange)), deadline_ms_(deadline_ms), peer_(std::move(peer)) {}
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
  ~Answer() {
    exchange_->waiting = nullptr;
    if (wheel_ != nullptr) wheel_->Cancel(this);
  }

  bool await_ready() const { return exchange_->result.has_value(); }
  void await_suspend(std::coroutine_handle<> handle) {
    suspension_.Suspend(handle);
    exchange_->waiting = &suspension_;
    Scheduler* scheduler = Scheduler::Current();
    const ActorCell* asker = scheduler->current_cell();
    wheel_ = &scheduler->timers();
    fire = [](TimerNode* timer) { static_cast<Answer*>(timer)->Expire(); };
    wheel_->Arm(this, scheduler->clock().NowNs() + deadline_ms_ * TimerWheel::kTickNs);
    subject_ = {.waiter = asker != nullptr ? std::string_view(asker->name) : "request",
                .owed = "reply",
                .from = peer_};
    wait_ = scheduler->waits().Begin(subject_);
  }
  Result<R> await_resume() { return *std::move(exchange_->result); }

 private:
  void Expire() {
    if (exchange_->result.has_value()) return;  // answered in the same pass
    subject_.deadline_ms = deadline_ms_;
    exchange_->result.emplace(Error{ErrorCode::kDeadlineExceeded, DeadlineSentence(subject_)});
    suspension_.Wake();
  }

  std::shared_ptr<Exchange<R>> exchange_;
  int64_t deadline_ms_;
  const std::string peer_;
  WaitSubject subject_;
  TimerWheel* wheel_ = nullptr;
  Suspension suspension_;
  WaitHandle wait_;
};

}  // namespace ask_internal

// co_await Ask(actor, message, deadline_ms). The message's reply is filled in here.
template <typename... Ms, typename M>
auto Ask(ActorRef<Ms...> actor, M message, int64_t deadline_ms)
    -> Task<Result<typename decltype(M::reply)::Value>> {
  using R = typename decltype(M::reply)::Value;
  auto exchange = std::make_shared<ask_internal::Exchange<R>>();
  message.reply = ReplyTo<R>([exchange](Result<R> result) {
    if (exchange->result.has_value()) return;  // the deadline was first
    exchange->result.emplace(std::move(result));
    if (exchange->waiting != nullptr) exchange->waiting->Wake();
  });
  Status sent = actor.Send(std::move(message));
  if (!sent.ok()) co_return std::move(sent).error();
  // A name belongs to its scheduler's thread.
  const bool named = actor_internal::OnOwnThread(*actor.cell());
  const std::string peer = named ? actor.cell()->name : "an actor of another scheduler";
  Result<R> result = co_await ask_internal::Answer<R>(std::move(exchange), deadline_ms, peer);
  if (!result.ok() && result.error().code == ErrorCode::kPeerDown) {
    co_return Context(peer, std::move(result).error());
  }
  co_return result;
}

}  // namespace troupe
