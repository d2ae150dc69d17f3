// RingAttentionActor: the blocks of keys and values, and their gradients, that a rank exchanges
// with its neighbours along cp (ring attention: Liu et al. 2023). One for the attention of all
// layers of the rank: it owns the slots that blocks come into, and knows no tensor.
//   Takes:  ExpectBlock, SendBlock, LetBlock       of a layer's pass (KvRing)
//           WithBulk<KvBlock>, WithBulk<KvGradientBlock>   of the previous rank's actor
//           BlockSent, RingCredit                  of the transport
//           MemberLost                             of the rank's router, behind what the lost one
//                                                  sent
//   Sends:  KvBlock, KvGradientBlock -> the next rank's actor
//   Thread: the rank's actor thread.
//
// Blocks of one kind and lane have a channel of their own: its credits, its slots and its order.
//
//   coming   expected --its block--> here --LetBlock--> let --all sent from it gone--> slot free
//            early    --ExpectBlock--> here
//   leaving  parked --credit--> leaving --BlockSent--> gone
//   any of them --member lost, deadline, wrong block--> broken (KvArrival, KvDeparture: the error)
//
//   I1. A channel's blocks come in the order in which they are expected: each is compared with what
//       is expected (hop, origin, layer, phase, microbatch, step, bytes, dtype) before it is given
//       out. A difference ends the actor, in a sentence that says both.
//   I2. A block that comes early stays in its slot. There are never more blocks than slots.
//   I3. A channel's blocks leave in the order of SendBlock, each against a credit; without one they
//       wait for it.
//   I4. The slot of a block is its sender's again when the pass has let the block go and what was
//       sent on from it has gone: neither waits for the other.
//   I5. Broken, everything open ends at once, and what is asked for later ends with the same error.
//       What was given out stays where it is: a stream may still compute with it.
//   I6. Where the transport hands blocks over by pointer, what comes is copied when it is given
//       out, so its sender's memory is free as soon as the receiver's pass has come that far.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "actors/messages.h"
#include "actors/model/kv_ring.h"
#include "actors/plan/context_volume.h"
#include "actors/plan/trace_window.h"
#include "actors/rank_traffic.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/remote.h"
#include "runtime/actor/wire.h"
#include "runtime/collective/group_messages.h"

namespace troupe {

using KvRef = RemoteRef<WithBulk<KvBlock>, WithBulk<KvGradientBlock>>;

// Keys and values of each lane, and gradients; numbered from kKvChannel.
inline constexpr int kNumKvChannels = 3;
static_assert(kKvGradientChannel == kKvChannel + kNumKvLanes);
static_assert(kContextLanes == kNumKvLanes, "of the memory that is planned");

// What a rank's blocks were in training steps.
struct RingTraffic {
  struct Sent {
    int64_t hops = 0;
    int64_t bytes = 0;
  };
  std::array<Sent, 2> sent{};  // by KvKind
  // Of those that came: from ExpectBlock until they are here as a whole. A transport says when a
  // block began to arrive, so it is the actor that says when it ended.
  int64_t under_way_ns = 0;
  int64_t idle_ns = 0;  // that the compute stream stood idle for them
};

struct RingAttentionOptions {
  std::vector<Rank> ranks{};       // of the group, in its order
  int index = 0;                   // of this rank
  TensorDescriptor keys_values{};  // of every block: (tokens, 2 · key channels)
  TensorDescriptor gradients{};
  KvRef next{};                          // the next rank's actor
  int64_t tell_ms = 0;                   // so long a wait is told of; 0: never
  int64_t end_ms = 0;                    // and ended; 0: never
  TraceWindow trace{};                   // the steps whose hops leave spans
  const RankTraffic* traffic = nullptr;  // outlives the actor; null: every block is counted
  // kKvSlots places for the blocks of each channel, where they are copied (I6); else none. They
  // outlive what computes with them.
  std::array<std::vector<std::span<std::byte>>, kNumKvChannels> copies{};
  std::function<void(const KvHop* hop)> on_hop{};  // that a pass has come to; null: none is open
};

class RingAttentionActor
    : public Actor<RingAttentionActor, ExpectBlock, SendBlock, LetBlock, WithBulk<KvBlock>,
                   WithBulk<KvGradientBlock>, BlockSent, RingCredit, MemberLost> {
 public:
  // The traffic outlives the actor.
  RingAttentionActor(RingAttentionOptions options, RingTraffic& traffic);

  Status On(const ExpectBlock& expect);
  Status On(const SendBlock& send);
  Status On(const LetBlock& let);
  Status On(WithBulk<KvBlock> block);
  Status On(WithBulk<KvGradientBlock> block);
  Status On(const BlockSent& sent);
  Status On(const RingCredit& credit);
  Status On(const MemberLost& lost);

 private:
  enum class Way : uint8_t { kComes, kLeaves };
  struct Wait {
    WaitHandle record{};
    TimerId deadline{};
  };
  struct Expected {
    KvHop hop{};
    KvArrival* arrival = nullptr;
    int64_t since_ns = 0;
    Wait wait{};
  };
  struct Early {
    KvHop hop{};
    TensorDescriptor tensor{};
    Bulk bulk{};
    int64_t came_ns = 0;  // as a whole
  };
  struct Here {
    KvHop hop{};
    std::span<std::byte> block{};
    Bulk slot{};          // empty where it was copied
    int num_leaving = 0;  // parked or leaving from it
    bool let = false;
  };
  struct Departing {
    KvHop hop{};
    std::span<const std::byte> block{};
    KvDeparture* departure = nullptr;
    uint64_t number = 0;
    uint32_t flow_id = 0;
    int64_t start_ns = 0;
    Wait wait{};
  };
  struct Channel {
    uint16_t number = 0;
    std::deque<Expected> expected{};
    std::deque<Early> early{};
    std::deque<Here> here{};
    std::deque<Departing> parked{};
    std::deque<Departing> leaving{};
    std::vector<std::span<std::byte>> free_copies{};
  };

  static size_t IndexOf(const KvHop& hop);  // of its channel
  const TensorDescriptor& TensorOf(KvKind kind) const {
    return kind == KvKind::kKeysValues ? options_.keys_values : options_.gradients;
  }
  bool copies() const { return !options_.copies.front().empty(); }
  bool counts() const { return options_.traffic == nullptr || options_.traffic->in_training_step; }
  void SayIfIdle() const;

  // ---- coming
  template <typename M>
  Status Take(KvKind kind, WithBulk<M> block);
  template <typename M>
  Result<KvHop> Read(KvKind kind, const M& block, const Envelope& envelope) const;
  Status GiveOut(Channel& channel);  // what is expected and has come
  Status Check(const Early& early, const KvHop& expected) const;
  void FreeSlots(Channel& channel);

  // ---- leaving
  void Flush(Channel& channel);
  Status Send(const Channel& channel, Departing& departing);
  // The slot that the block lies in; null: it is the pass's own memory.
  static Here* HolderOf(Channel& channel, std::span<const std::byte> block);

  // ---- waits and ends
  void BeginWait(Wait& wait, const KvHop& hop, Way way);
  void EndWait(Wait& wait);
  WaitSubject SubjectOf(const KvHop& hop, Way way);
  Status Refuse(int32_t from, Error error);  // a block
  void Break(const Error& error);
  // What a pass waits for, first of all of the lost rank; "ring attention" where none waits.
  std::string OpenHopInWords(Rank lost) const;

  void WriteReceived(const KvHop& hop, const Envelope& envelope, int64_t arrived_ns) const;
  void WriteSent(const Departing& gone) const;

  const RingAttentionOptions options_;
  RingTraffic& traffic_;
  const Rank self_;
  const Rank previous_;
  const Rank next_;
  const std::string waiter_;         // "rank 1"
  const std::string previous_name_;  // "rank 0"
  const std::string next_name_;      // "rank 2"
  // Names of waits: "attention of layer 3", by layer; "block of hop 1".
  std::map<int32_t, std::string> activities_{};
  std::map<std::tuple<Way, KvKind, int32_t>, std::string> owed_{};
  std::array<Channel, kNumKvChannels> channels_{};
  uint64_t num_sent_ = 0;
  std::optional<Error> broken_{};
};

}  // namespace troupe
