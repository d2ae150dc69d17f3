// RankRouter: binds a scheduler to a transport. Registers local actors under the indices that other
// ranks address, and hands out typed references to theirs.
//
//     RankRouter router(scheduler, transport, {.self = Rank(0), .job = job, .epoch = epoch});
//     router.Register<StepStart, WithBulk<Activation>>(kExecutorIndex, executor);
//     RemoteRef<StepStart> peer = router.Remote<StepStart>(Rank(3), kExecutorIndex);
//     peer.Send(step_start);
//
// Thread: the scheduler's, all of it.
//   R1. A message reaches an actor only with the router's job and epoch, the registered
//       incarnation, a type that the actor takes and a payload that decodes; anything else is
//       dropped, counted by cause and reported, and the link stays.
//   R2. FIFO per (source, destination, channel), as the transport; local Sends likewise.
//   R3. Bulk lives as long as the WithBulk message that carries it; the transport outlives both.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/actor/actor_ref.h"
#include "runtime/actor/scheduler.h"
#include "runtime/actor/wire.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/transport/envelope.h"
#include "runtime/transport/transport.h"

namespace troupe {

// What the sender may say in the envelope besides the message.
struct Postmark {
  uint16_t channel = 0;  // > 0 for bulk: a data channel with posted slots
  int64_t step = 0;
  int32_t microbatch = -1;
  int32_t stage = -1;
  uint32_t flow_id = 0;  // joins the spans of sending and receiving (trace/span.h: NewFlowId)
};

enum class DropCause : uint8_t {
  kMalformed,       // bad magic or version
  kWrongEpoch,      // another job or epoch
  kUnknownActor,    // no such index
  kStale,           // an old incarnation, or the actor has ended
  kUnknownType,     // the actor takes no such message
  kBadPayload,      // does not decode
  kUnexpectedBulk,  // bulk beside a message that takes none
  kMailboxFull,
};
inline constexpr int kNumDropCauses = 8;
std::string_view DropCauseName(DropCause cause);

template <typename... M>
class RemoteRef;

class RankRouter {
 public:
  static constexpr uint32_t kMaxActors = 1 << 16;

  struct Options {
    Rank self;
    JobId job;
    Epoch epoch;
    std::function<void(Rank peer, const Error& cause)> on_peer_down;
    std::function<void(Rank peer, uint16_t channel)> on_credit;
    std::function<void(DropCause cause, const Envelope& envelope, const Error& error)> on_drop;
  };

  // Takes over the transport's handlers and adds it to the scheduler's pollers.
  RankRouter(Scheduler& scheduler, Transport& transport, Options options);
  ~RankRouter();
  RankRouter(const RankRouter&) = delete;
  RankRouter& operator=(const RankRouter&) = delete;

  // Names what other ranks may send to the actor, out of what it takes: a local message that holds
  // a pointer must never be one of them. Indices are places in a table, so they are small.
  template <typename... M>
  void Register(uint32_t index, std::type_identity_t<ActorRef<M...>> actor,
                Incarnation incarnation = Incarnation(1)) {
    static_assert(sizeof...(M) > 0, "name the messages: Register<M...>(index, actor)");
    static_assert((!std::is_void_v<typename WireOf<M>::Type> && ...),
                  "a registered message is protobuf, or a plain struct with kMessageName");
    Entry entry{.incarnation = incarnation.value, .name = {}, .types = {}};
    if (!actor.empty()) entry.name = actor.cell()->name;
    (AddType<M>(entry, actor), ...);
    CHECK(index < kMaxActors, "an actor under index {}: at most {}", index, kMaxActors - 1);
    if (index >= entries_.size()) entries_.resize(index + 1);
    entries_[index] = std::move(entry);
  }
  void Unregister(uint32_t index) {
    if (index < entries_.size()) entries_[index].reset();
  }

  template <typename... M>
  RemoteRef<M...> Remote(Rank rank, uint32_t index, Incarnation incarnation = Incarnation(1)) {
    return RemoteRef<M...>(this, rank, index, incarnation);
  }

  // For RemoteRef. A message to this very rank goes through the run queue instead.
  Status SendEncoded(Rank to, uint32_t index, uint32_t incarnation, uint64_t type_id,
                     std::span<const std::byte> payload, const Postmark& postmark);
  Status SendBulkEncoded(Rank to, uint32_t index, uint32_t incarnation, uint64_t type_id,
                         std::span<const std::byte> payload, std::span<const std::byte> bulk,
                         std::function<void()> done, const Postmark& postmark);

  // What the transport calls; public for tests that feed it bytes.
  void Deliver(Delivery&& delivery);

  void SetEpoch(Epoch epoch) { options_.epoch = epoch; }
  Scheduler& scheduler() const { return scheduler_; }
  Transport& transport() const { return transport_; }
  Rank self() const { return options_.self; }
  int64_t delivered() const { return delivered_; }
  int64_t dropped(DropCause cause) const { return dropped_[static_cast<size_t>(cause)]; }
  int64_t dropped_total() const;

 private:
  struct TypeEntry {
    uint64_t type_id;
    bool with_bulk;
    std::function<Status(Delivery&)> deliver;
  };
  struct Entry {
    uint32_t incarnation;
    std::string name;
    std::vector<TypeEntry> types;
  };

  template <typename M, typename... All>
  void AddType(Entry& entry, ActorRef<All...> actor) {
    using Wire = typename WireOf<M>::Type;
    entry.types.push_back(
        {WireTypeId<Wire>(), WireOf<M>::kWithBulk, [actor](Delivery& delivery) -> Status {
           Wire message{};
           RETURN_IF_ERROR(Decode(delivery.payload, &message));
           if constexpr (WireOf<M>::kWithBulk) {
             return actor.Send(M{std::move(message), std::move(delivery.bulk), delivery.envelope,
                                 delivery.arrived_ns});
           } else {
             return actor.Send(std::move(message));
           }
         }});
  }

  Envelope MakeEnvelope(uint32_t index, uint32_t incarnation, uint64_t type_id,
                        const Postmark& postmark) const;
  Status Dispatch(Delivery& delivery, DropCause* cause);
  void Drop(DropCause cause, const Envelope& envelope, Error error);
  void DeliverToSelf(const Envelope& envelope, std::span<const std::byte> payload,
                     std::span<const std::byte> bulk, std::function<void()> done);

  Scheduler& scheduler_;
  Transport& transport_;
  Options options_;
  PollerId poller_;
  std::vector<std::optional<Entry>> entries_;  // by index
  std::array<int64_t, kNumDropCauses> dropped_{};
  int64_t delivered_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for closures posted by this
};

// A typed handle of an actor on another rank, 24 bytes, freely copied. The router outlives it.
template <typename... M>
class RemoteRef {
 public:
  static constexpr bool kLocal = false;
  using Messages = MessageList<M...>;

  RemoteRef() = default;
  RemoteRef(RankRouter* router, Rank rank, uint32_t index, Incarnation incarnation)
      : router_(router), rank_(rank), index_(index), incarnation_(incarnation.value) {}
  template <RemoteHandleOf<M...> Other>
  RemoteRef(const Other& other)  // NOLINT(*-explicit-*): fewer messages, same actor
      : RemoteRef(other.router(), other.rank(), other.index(), other.incarnation()) {}

  template <OneOf<M...> T>
  Status Send(const T& message, const Postmark& postmark = {}) const {
    static_assert(WireMessage<T>, "only a wire message reaches another rank");
    if (router_ == nullptr) return actor_internal::NoActor();
    return WithEncoded(message, [&](std::span<const std::byte> payload) {
      return router_->SendEncoded(rank_, index_, incarnation_, WireTypeId<T>(), payload, postmark);
    });
  }

  // `bulk` stays valid and unchanged until `done`. Without a credit on postmark.channel:
  // kResourceExhausted, nothing is sent and `done` is not called. T is M of a WithBulk<M>.
  template <OneOf<M..., typename WireOf<M>::Type...> T>
  Status SendBulk(const T& message, std::span<const std::byte> bulk, std::function<void()> done,
                  const Postmark& postmark) const {
    if (router_ == nullptr) return actor_internal::NoActor();
    return WithEncoded(message, [&](std::span<const std::byte> payload) {
      return router_->SendBulkEncoded(rank_, index_, incarnation_, WireTypeId<T>(), payload, bulk,
                                      std::move(done), postmark);
    });
  }

  bool empty() const { return router_ == nullptr; }
  RankRouter* router() const { return router_; }
  Rank rank() const { return rank_; }
  uint32_t index() const { return index_; }
  Incarnation incarnation() const { return Incarnation(incarnation_); }

 private:
  RankRouter* router_ = nullptr;
  Rank rank_;
  uint32_t index_ = 0;
  uint32_t incarnation_ = 0;
};

// An actor wherever it lives: for those who only send.
template <typename... M>
class Ref {
 public:
  Ref() = default;
  template <LocalHandleOf<M...> Other>
  Ref(const Other& local) : to_(ActorRef<M...>(local)) {}  // NOLINT(*-explicit-*)
  template <RemoteHandleOf<M...> Other>
  Ref(const Other& remote) : to_(RemoteRef<M...>(remote)) {}  // NOLINT(*-explicit-*)

  template <OneOf<M...> T>
  Status Send(const T& message) const {
    if (const auto* local = std::get_if<ActorRef<M...>>(&to_)) return local->Send(message);
    return std::get<RemoteRef<M...>>(to_).Send(message);
  }
  bool local() const { return to_.index() == 0; }

 private:
  std::variant<ActorRef<M...>, RemoteRef<M...>> to_;
};

}  // namespace troupe
