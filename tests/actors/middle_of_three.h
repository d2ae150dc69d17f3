// A ring attention actor between its neighbours, as a script of what passes ask of it and of what
// the other ranks send. Ring attention's tests share it.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/kv_hop.h"
#include "actors/ring_attention_actor.h"
#include "kernels/tensor_view.h"
#include "runtime/transport/inproc/inproc_transport.h"
#include "tests/runtime/actor/manual_clock.h"

namespace troupe::testing {

inline constexpr uint64_t kBlockBytes = 4;

inline TensorDescriptor BlockOfBytes(DType dtype) {
  return {.dtype = static_cast<uint8_t>(dtype),
          .rank = 2,
          .shape = {1, 2, 0, 0},
          .num_bytes = kBlockBytes};
}

// What another rank's actor hears.
struct Heard {
  std::vector<WithBulk<KvBlock>> blocks{};
  std::vector<WithBulk<KvGradientBlock>> gradients{};
};
class RingListener : public Actor<RingListener, WithBulk<KvBlock>, WithBulk<KvGradientBlock>> {
 public:
  explicit RingListener(Heard& heard) : heard_(heard) {}
  Status On(WithBulk<KvBlock> block) {
    heard_.blocks.push_back(std::move(block));
    return {};
  }
  Status On(WithBulk<KvGradientBlock> block) {
    heard_.gradients.push_back(std::move(block));
    return {};
  }

 private:
  Heard& heard_;
};

// Of a pass of rank 5.
inline KvHop Hop(int32_t hop, KvHop of = {}) {
  of.hop = hop;
  of.origin = (1 - hop + 3) % 3;
  if (of.step < 0) of.step = 1;
  if (of.microbatch < 0) of.microbatch = 2;
  if (of.layer == 0) of.layer = 7;
  return of;
}
inline KvHop Backward(int32_t hop) { return Hop(hop, {.phase = KvPhase::kBackward}); }
inline KvHop Gradient(int32_t hop) {
  return Hop(hop, {.kind = KvKind::kGradients, .phase = KvPhase::kBackward});
}

// Rank 5's actor, the second of the group of ranks 4, 5 and 6. The test speaks for its passes, for
// rank 4 before it and for rank 6 behind it, and for rank 0, which is no member.
class MiddleOfThree {
 public:
  explicit MiddleOfThree(bool copies = false) {
    for (const int rank : {0, 4, 5, 6}) {
      transports_[rank] = network_.NewTransport(Rank(rank));
      RankRouter::Options options{.self = Rank(rank),
                                  .job = {},
                                  .epoch = {},
                                  .on_peer_down = {},
                                  .on_credit = {},
                                  .on_drop = {}};
      if (rank == 5) {
        options.on_credit = [this](Rank, uint16_t channel) {
          (void)actor_.Send(RingCredit{channel});
        };
      }
      routers_[rank] =
          std::make_unique<RankRouter>(scheduler, *transports_[rank], std::move(options));
    }
    for (const int rank : {0, 4, 6}) Meet(rank);
    RingAttentionOptions options{
        .ranks = {Rank(4), Rank(5), Rank(6)},
        .index = 1,
        .keys_values = BlockOfBytes(DType::kBFloat16),
        .gradients = BlockOfBytes(DType::kFloat32),
        .next = routers_[5]->Remote<WithBulk<KvBlock>, WithBulk<KvGradientBlock>>(
            Rank(6), kRingAttentionIndex),
        .tell_ms = 100,
        .end_ms = 300,
        .trace = StepOne(),
        .traffic = &traffic,
        .on_hop = [this](const KvHop* hop) {
          came_to.push_back(hop == nullptr ? "-" : std::to_string(hop->hop));
        }};
    if (copies) {
      for (auto& of_channel : options.copies) {
        for (int slot = 0; slot < kKvSlots; ++slot) {
          places_.emplace_back(kBlockBytes);
          of_channel.push_back(places_.back());
        }
      }
    }
    actor_ = scheduler.Spawn<RingAttentionActor>({.name = "ring attention"}, std::move(options),
                                                 std::ref(blocks));
    routers_[5]->Register<WithBulk<KvBlock>, WithBulk<KvGradientBlock>>(kRingAttentionIndex,
                                                                        actor_);
    scheduler.SetOnDown([this](const Down& end) { down.push_back(end.error.message); });
  }

  // ---- of a pass
  KvArrival& Expect(const KvHop& hop) {
    KvArrival& arrival = arrivals_.emplace_back();
    EXPECT_TRUE(actor_.Send(ExpectBlock{hop, kBlockBytes, &arrival}).ok());
    scheduler.RunUntilIdle();
    return arrival;
  }
  KvDeparture& Send(const KvHop& hop, std::span<const std::byte> block) {
    KvDeparture& departure = departures_.emplace_back();
    EXPECT_TRUE(actor_.Send(SendBlock{hop, block, &departure}).ok());
    scheduler.RunUntilIdle();
    return departure;
  }
  KvDeparture& Send(const KvHop& hop, const std::string& text) {
    return Send(hop, std::as_bytes(std::span(texts_.emplace_back(text))));
  }
  void Let(const KvHop& hop, int64_t idle_ns = 0) {
    EXPECT_TRUE(actor_.Send(LetBlock{hop, idle_ns}).ok());
    scheduler.RunUntilIdle();
  }

  // ---- of the other ranks. As the pass of this rank names the hop.
  struct Odd {
    int from = 4;
    std::optional<TensorDescriptor> tensor{};
    std::optional<uint32_t> phase{};
    std::optional<uint16_t> channel{};
  };
  bool Bring(const KvHop& hop, const std::string& text, const Odd& odd) {
    const bool gradient = hop.kind == KvKind::kGradients;
    const auto usual =
        static_cast<uint16_t>(gradient ? kKvGradientChannel : kKvChannel + LaneOf(hop.phase));
    const auto bytes = std::as_bytes(std::span(texts_.emplace_back(text)));
    const Postmark postmark{.channel = odd.channel.value_or(usual), .flow_id = 77};
    const auto to = routers_[odd.from]->Remote<WithBulk<KvBlock>, WithBulk<KvGradientBlock>>(
        Rank(5), kRingAttentionIndex);
    const auto send = [&](auto message) {
      message.tensor = odd.tensor.value_or(message.tensor);
      message.phase = odd.phase.value_or(message.phase);
      return to
          .SendBulk(
              message, bytes, [this] { ++let_go; }, postmark)
          .ok();
    };
    const bool sent = gradient
                          ? send(MessageOf<KvGradientBlock>(hop, BlockOfBytes(DType::kFloat32)))
                          : send(MessageOf<KvBlock>(hop, BlockOfBytes(DType::kBFloat16)));
    scheduler.RunUntilIdle();
    return sent;
  }
  bool Bring(const KvHop& hop, const std::string& text) { return Bring(hop, text, {}); }
  void Lose(int rank) {
    ASSERT_TRUE(
        actor_.Send(MemberLost{Rank(rank), Error{ErrorCode::kPeerDown, "it was lost"}}).ok());
    scheduler.RunUntilIdle();
  }
  void Pass(int64_t ms) {
    clock.AdvanceMs(ms);
    scheduler.RunUntilIdle();
  }

  static std::string TextOf(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  static std::string End(const KvArrival& arrival) {
    if (!arrival.here.happened()) return "waits";
    return arrival.status.ok() ? TextOf(arrival.block) : arrival.status.error().message;
  }
  static std::string End(const KvDeparture& departure) {
    if (!departure.gone.happened()) return "waits";
    return departure.status.ok() ? "gone" : departure.status.error().message;
  }
  // Blocks and gradients that rank 6 has, and lets go.
  std::string TakeNext() {
    std::string text;
    for (const auto& each : heard[6].blocks) {
      text += std::to_string(each.message.hop) + TextOf(each.bulk.bytes()) + " ";
    }
    for (const auto& each : heard[6].gradients) {
      text += "g" + std::to_string(each.message.hop) + TextOf(each.bulk.bytes()) + " ";
    }
    heard[6] = {};
    scheduler.RunUntilIdle();
    return text;
  }

  std::map<int, Heard> heard{};  // by rank
  RankTraffic traffic{};
  RingTraffic blocks{};
  std::vector<std::string> down{};
  std::vector<std::string> came_to{};
  int let_go = 0;  // of what Bring sent
  ManualClock clock{};
  Scheduler scheduler{{.clock = &clock, .rank = {}, .trace_handlers = false}};

 private:
  static TraceWindow StepOne() {
    proto::TraceWindow spec;
    spec.set_first(1);
    spec.set_steps(1);
    return {spec, /*first_step=*/1};
  }
  void Meet(int rank) {
    Transport& theirs = *transports_[rank];
    Transport& own = *transports_[5];
    EXPECT_TRUE(own.Connect(Rank(rank), theirs.LocalAddress()).ok());
    EXPECT_TRUE(theirs.Connect(Rank(5), own.LocalAddress()).ok());
    for (int channel = kKvChannel; channel < kKvChannel + kNumKvChannels; ++channel) {
      const auto number = static_cast<uint16_t>(channel);
      EXPECT_TRUE(theirs.PostSlots(Rank(5), number, kKvSlots, kBlockBytes).ok());
      own.SetCredits(Rank(rank), number, kKvSlots);
      EXPECT_TRUE(own.PostSlots(Rank(rank), number, kKvSlots, 2 * kBlockBytes).ok());
      theirs.SetCredits(Rank(5), number, kKvSlots + 1);
    }
    routers_[rank]->Register<WithBulk<KvBlock>, WithBulk<KvGradientBlock>>(
        kRingAttentionIndex, scheduler.Spawn<RingListener>({}, std::ref(heard[rank])));
  }

  std::deque<std::vector<std::byte>> places_{};
  std::deque<std::string> texts_{};
  std::deque<KvArrival> arrivals_{};
  std::deque<KvDeparture> departures_{};
  InprocNetwork network_{};
  std::map<int, std::unique_ptr<Transport>> transports_{};
  std::map<int, std::unique_ptr<RankRouter>> routers_{};
  RingAttentionActor::SelfRef actor_{};
};

}  // namespace troupe::testing
