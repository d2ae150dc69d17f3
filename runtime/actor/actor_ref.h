// ActorRef<M...>: a typed handle of one incarnation of an actor, 16 bytes, freely copied.
// It accepts exactly the messages M..., and converts from a handle that accepts more.
//
// Thread: Send from any thread. The scheduler must outlive its references.
//   R1. Messages of one thread to one actor arrive in the order of their Sends.
//   R2. Send never blocks and never runs the receiver.
//   R3. An ended actor answers kStale, a full mailbox kResourceExhausted; the message is dropped
//       then, and nothing else drops it while the actor lives. A mailbox that drops its oldest
//       (telemetry) takes everything and counts what it lost.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include "runtime/actor/actor_cell.h"

namespace troupe {

template <typename... M>
class ActorRef {
 public:
  static constexpr bool kLocal = true;
  using Messages = MessageList<M...>;

  ActorRef() = default;
  ActorRef(ActorCell* cell, Incarnation incarnation)
      : cell_(cell), incarnation_(incarnation.value) {}
  template <LocalHandleOf<M...> Other>
  ActorRef(const Other& other)  // NOLINT(*-explicit-*): fewer messages, same actor
      : cell_(other.cell()), incarnation_(other.incarnation().value) {}

  template <OneOf<M...> T>
  Status Send(T&& message) const {
    using Message = std::remove_cvref_t<T>;
    if (cell_ == nullptr) [[unlikely]]
      return actor_internal::NoActor();
    if (cell_->incarnation.load(std::memory_order_relaxed) != incarnation_) [[unlikely]] {
      return actor_internal::NotAlive(*cell_, incarnation_);
    }
    const bool local = actor_internal::OnOwnThread(*cell_);
    if (local ? !cell_->mailbox.HasRoom() : !cell_->mailbox.TryReserve()) [[unlikely]] {
      const actor_internal::Room room = actor_internal::MakeRoom(*cell_, local);
      if (room == actor_internal::Room::kNone) return actor_internal::MailboxFull(*cell_);
      if (room == actor_internal::Room::kDropThis) return {};
    }
    auto* node = new TypedNode<Message>(std::forward<T>(message));
    if (local) [[likely]] {
      actor_internal::AppendAndSchedule(cell_, node);
      return {};
    }
    node->target = cell_;
    node->incarnation = incarnation_;
    return actor_internal::SendFromOutside(cell_, node);
  }

  bool empty() const { return cell_ == nullptr; }
  bool alive() const {
    return cell_ != nullptr && cell_->incarnation.load(std::memory_order_relaxed) == incarnation_;
  }
  ActorCell* cell() const { return cell_; }
  Incarnation incarnation() const { return Incarnation(incarnation_); }
  bool operator==(const ActorRef&) const = default;

 private:
  ActorCell* cell_ = nullptr;
  uint32_t incarnation_ = 0;
};

}  // namespace troupe
