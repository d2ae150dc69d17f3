// Actor<Derived, M...>: an actor that takes the messages M.... For each M, Derived has a public
//
//     Status On(M)         a plain handler, no coroutine frame; or
//     Task<Status> On(M)   a coroutine, which takes its message by value and may co_await.
//
// class PingActor : public Actor<PingActor, Ping> {
//  public:
//   Status On(Ping ping) { return ping.sender.Send(Pong{ping.number}); }
// };
// PingActor::SelfRef ping = scheduler.Spawn<PingActor>({.name = "ping"});
//
// Thread: the constructor, OnStart, every handler and the destructor on the scheduler's thread.
//   A1. One message at a time, suspended handlers included; state needs no lock.
//   A2. A handler that returns an error ends its actor. Codes in Derived::kNormalEndings (a
//       constexpr array of ErrorCode, optional) end it quietly, all others send Down to its
//       supervisor.
//   A3. A suspended handler of an ended actor is destroyed where it waits.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <type_traits>
#include <utility>

#include "runtime/actor/actor_base.h"
#include "runtime/actor/actor_ref.h"
#include "runtime/actor/message.h"
#include "runtime/actor/scheduler.h"
#include "runtime/actor/task.h"

namespace troupe {

template <typename Derived, typename... Messages>
class Actor : public ActorBase {
 public:
  using SelfRef = ActorRef<Messages...>;

  Status Receive(MessageNode& node, Task<Status>& task) final {
    Status status;
    const bool taken =
        ((node.type == &kMessageType<Messages> ? (Handle<Messages>(node, status, task), true)
                                               : false) ||
         ...);
    CHECK(taken, "{}: message {} is not one it takes", context().name(), node.type->name);
    return status;
  }
  std::span<const MessageType* const> TakenMessages() const final {
    static constexpr std::array<const MessageType*, sizeof...(Messages)> kTaken = {
        &kMessageType<Messages>...};
    return kTaken;
  }
  bool IsNormalEnding(ErrorCode code) const final {
    if constexpr (requires { Derived::kNormalEndings; }) {
      return std::ranges::find(Derived::kNormalEndings, code) !=
             std::ranges::end(Derived::kNormalEndings);
    } else {
      return false;
    }
  }

 protected:
  SelfRef self() const {
    return SelfRef(cell(), Incarnation(cell()->incarnation.load(std::memory_order_relaxed)));
  }
  ActorContext context() const { return ActorContext(cell()); }

 private:
  template <typename M>
  void Handle(MessageNode& node, Status& status, Task<Status>& task) {
    auto& self = static_cast<Derived&>(*this);
    M& message = static_cast<TypedNode<M>&>(node).message;
    if constexpr (requires { static_cast<Task<Status> (Derived::*)(M)>(&Derived::On); }) {
      task = self.On(std::move(message));
    } else {
      static_assert(std::is_same_v<decltype(self.On(std::move(message))), Status>,
                    "a handler is Status On(M) or, by value, Task<Status> On(M)");
      status = self.On(std::move(message));
    }
  }
};

}  // namespace troupe
