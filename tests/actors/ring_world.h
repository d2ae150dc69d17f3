// Ranks of one process that share sequences in a ring. A pass is a task of its rank's stream, as a
// layer's is: every block says by its values whose it is and of which pass. `Network` is the
// transport's, as in tests/runtime/collective/router_world.h.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/plan/sequence_layout.h"
#include "actors/rank_ring.h"
#include "kernels/tensor_view.h"
#include "runtime/actor/stream_wait.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe::testing {

// A pass over a layer. Those of one lane come in one order at every rank.
struct RingPass {
  KvPhase phase = KvPhase::kForward;
  int64_t step = 1;
  int32_t microbatch = 0;
  int32_t layer = 0;
  size_t elements = 100;  // of a block

  KvHop Hop(KvKind kind, int hop, int origin) const {
    return {.kind = kind,
            .phase = phase,
            .step = step,
            .microbatch = microbatch,
            .layer = layer,
            .hop = hop,
            .origin = origin};
  }
};

// What became of a rank's passes of a lane.
struct PassEnd {
  bool ended = false;
  Status status{};
  std::string wrong{};  // a block that was another than it must be; empty: none was
};

class PassTask {
 public:
  using Block = std::vector<float>;

  // Small whole numbers, so that sums are exact.
  static float Key(const RingPass& pass, int origin, size_t element) {
    return static_cast<float>(origin * 7 + pass.layer * 11 + pass.microbatch * 13 +
                              static_cast<int>(pass.phase) * 17 + static_cast<int>(element % 31));
  }
  // What rank `from` adds to the gradient of the block of `origin`.
  static float Part(const RingPass& pass, int from, int origin, size_t element) {
    return Key(pass, origin, element) + static_cast<float>(100 * (from + 1));
  }

  // One after the other.
  static Task<Status> Run(KvRing& ring, std::vector<RingPass> passes, PassEnd& end) {
    for (const RingPass& pass : passes) CO_RETURN_IF_ERROR(co_await RunOne(ring, pass, end));
    co_return Status{};
  }

 private:
  static Task<Status> RunOne(KvRing& ring, const RingPass& pass, PassEnd& end) {
    return pass.phase == KvPhase::kBackward ? Backward(ring, pass, end) : Forward(ring, pass, end);
  }

  struct Exchange {
    KvArrival arrival{};
    KvDeparture departure{};
  };

  static int Origin(const KvRing& ring, int hop) {
    return OriginAfter(ring.num_ranks(), ring.index(), hop);
  }
  static std::span<std::byte> BytesOf(Block& block) {
    return std::as_writable_bytes(std::span(block));
  }
  static std::span<float> Floats(std::span<std::byte> block) {
    return {reinterpret_cast<float*>(block.data()), block.size() / sizeof(float)};
  }
  static void Begin(KvRing& ring, const RingPass& pass, KvKind kind, int hop,
                    std::span<std::byte> block, Exchange& exchange) {
    ring.Expect(pass.Hop(kind, hop, Origin(ring, hop)), std::ssize(block), exchange.arrival);
    ring.Send(pass.Hop(kind, hop, Origin(ring, hop - 1)), block, exchange.departure);
  }
  static void CheckKeys(const RingPass& pass, int origin, std::span<std::byte> block,
                        PassEnd& end) {
    const std::span<float> keys = Floats(block);
    for (size_t i = 0; i < keys.size(); ++i) {
      if (keys[i] == Key(pass, origin, i)) continue;
      end.wrong = "keys of " + std::to_string(origin);
    }
  }

  static Task<Status> Forward(KvRing& ring, RingPass pass, PassEnd& end) {
    const int num_ranks = ring.num_ranks();
    Block own(pass.elements);
    for (size_t i = 0; i < own.size(); ++i) own[i] = Key(pass, ring.index(), i);
    std::deque<Exchange> keys(static_cast<size_t>(num_ranks));
    std::span<std::byte> block = BytesOf(own);
    for (int hop = 0; hop < num_ranks; ++hop) {
      const bool last = hop + 1 == num_ranks;
      Exchange& next = keys[static_cast<size_t>((hop + 1) % num_ranks)];
      if (!last) {
        co_await OnScheduler([&] { Begin(ring, pass, KvKind::kKeysValues, hop + 1, block, next); });
      }
      CheckKeys(pass, Origin(ring, hop), block, end);
      if (hop > 0) {
        co_await OnScheduler(
            [&] { ring.Let(pass.Hop(KvKind::kKeysValues, hop, Origin(ring, hop)), 0); });
      }
      if (last) break;
      co_await next.arrival.here;
      if (!next.arrival.status.ok()) co_return next.arrival.status;
      block = next.arrival.block;
    }
    for (size_t hop = 1; hop < keys.size(); ++hop) {
      co_await keys[hop].departure.gone;
      CO_RETURN_IF_ERROR(keys[hop].departure.status);
    }
    co_return Status{};
  }

  static Task<Status> Backward(KvRing& ring, RingPass pass, PassEnd& end) {
    const int num_ranks = ring.num_ranks();
    Block own(pass.elements), part(pass.elements);
    for (size_t i = 0; i < own.size(); ++i) own[i] = Key(pass, ring.index(), i);
    std::deque<Exchange> keys(static_cast<size_t>(num_ranks) + 1);
    std::deque<Exchange> sums(static_cast<size_t>(num_ranks) + 1);
    std::span<std::byte> block = BytesOf(own);
    std::span<std::byte> sum = BytesOf(part);
    for (int hop = 0; hop < num_ranks; ++hop) {
      const auto at = static_cast<size_t>(hop);
      if (hop + 1 < num_ranks) {
        co_await OnScheduler(
            [&] { Begin(ring, pass, KvKind::kKeysValues, hop + 1, block, keys[at + 1]); });
      }
      CheckKeys(pass, Origin(ring, hop), block, end);
      if (hop > 0) {
        co_await sums[at].arrival.here;
        CO_RETURN_IF_ERROR(sums[at].arrival.status);
        sum = sums[at].arrival.block;
      }
      const std::span<float> gradient = Floats(sum);
      for (size_t i = 0; i < gradient.size(); ++i) {
        gradient[i] = (hop > 0 ? gradient[i] : 0) + Part(pass, ring.index(), Origin(ring, hop), i);
      }
      co_await OnScheduler([&] {
        Begin(ring, pass, KvKind::kGradients, hop + 1, sum, sums[at + 1]);
        if (hop == 0) return;
        ring.Let(pass.Hop(KvKind::kKeysValues, hop, Origin(ring, hop)), 0);
        ring.Let(pass.Hop(KvKind::kGradients, hop, Origin(ring, hop)), 0);
      });
      if (hop + 1 == num_ranks) break;
      co_await keys[at + 1].arrival.here;
      CO_RETURN_IF_ERROR(keys[at + 1].arrival.status);
      block = keys[at + 1].arrival.block;
    }
    Exchange& home = sums.back();
    co_await home.arrival.here;
    CO_RETURN_IF_ERROR(home.arrival.status);
    const std::span<float> gradient = Floats(home.arrival.block);
    for (size_t i = 0; i < gradient.size(); ++i) {
      float expected = 0;
      for (int rank = 0; rank < num_ranks; ++rank) expected += Part(pass, rank, ring.index(), i);
      if (gradient[i] != expected) end.wrong = "gradient";
    }
    co_await OnScheduler(
        [&] { ring.Let(pass.Hop(KvKind::kGradients, num_ranks, ring.index()), 0); });
    for (std::deque<Exchange>* exchanges : {&keys, &sums}) {
      const size_t after_last = exchanges->size() - (exchanges == &keys ? 1 : 0);
      for (size_t hop = 1; hop < after_last; ++hop) {
        co_await (*exchanges)[hop].departure.gone;
        CO_RETURN_IF_ERROR((*exchanges)[hop].departure.status);
      }
    }
    co_return Status{};
  }
};

template <typename Network>
class RingWorld {
 public:
  explicit RingWorld(int size, const RankGroups::Deadlines& deadlines = {}) {
    RankRingOptions options;
    for (int rank = 0; rank < size; ++rank) options.ranks.emplace_back(rank);
    options.keys_values = {.dtype = static_cast<uint8_t>(DType::kFloat32),
                           .rank = 2,
                           .shape = {static_cast<int64_t>(RingPass{}.elements / 2), 2, 0, 0},
                           .num_bytes = RingPass{}.elements * sizeof(float)};
    options.gradients = options.keys_values;
    for (const Rank rank : options.ranks) {
      ranks_.push_back(std::make_unique<Member>(network_, rank, options, deadlines));
    }
    for (auto& from : ranks_) {
      for (auto& to : ranks_) {
        if (from == to) continue;
        CHECK(from->transport->Connect(to->rank, to->transport->LocalAddress()).ok());
      }
    }
    for (auto& member : ranks_) {
      const Status opened = member->ring->Open();
      CHECK(opened.ok(), "{}", opened.error().message);
    }
  }

  int size() const { return static_cast<int>(ranks_.size()); }
  Scheduler& scheduler(int rank) { return at(rank).scheduler; }
  RankRing& ring(int rank) { return *at(rank).ring; }
  RankTraffic& traffic(int rank) { return at(rank).traffic; }
  const std::vector<std::string>& errors(int rank) { return at(rank).errors; }
  int64_t now_ns() { return network_.clock().NowNs(); }

  // Passes of one lane.
  const PassEnd& Launch(int rank, std::vector<RingPass> passes) {
    PassEnd& end = ends_.emplace_back();
    Member& member = at(rank);
    member.stream->LaunchTask(member.scope,
                              PassTask::Run(*member.ring->ring(), std::move(passes), end),
                              [&end](const WorkTime&, Status status) {
                                end.status = std::move(status);
                                end.ended = true;
                              });
    return end;
  }
  void LaunchAll(const std::vector<RingPass>& passes) {
    for (int rank = 0; rank < size(); ++rank) Launch(rank, passes);
  }
  const std::deque<PassEnd>& ends() const { return ends_; }
  bool UntilAllEnded() {
    return Until([this] { return std::ranges::all_of(ends_, &PassEnd::ended); });
  }
  void ExpectAllWell() {
    for (const PassEnd& end : ends_) {
      EXPECT_TRUE(end.status.ok()) << end.status.error().message;
      EXPECT_EQ(end.wrong, "");
    }
    for (int rank = 0; rank < size(); ++rank) {
      EXPECT_EQ(errors(rank), std::vector<std::string>{});
      EXPECT_EQ(scheduler(rank).waits().size(), 0);
    }
  }

  void Stop(int rank) { at(rank).runs = false; }  // it does nothing any more
  void Kill(int rank) {
    Stop(rank);
    network_.Kill(Rank(rank), *at(rank).transport);
  }
  template <typename Done>
  bool Until(Done done) {
    return DrivenUntil(done, [this] { Pass(); });
  }
  // Long enough for what is under way.
  void Settle() {
    for (int i = 0; i < 200; ++i) Pass();
  }

 private:
  struct Member {
    Member(Network& network, Rank r, const RankRingOptions& options,
           const RankGroups::Deadlines& deadlines)
        : rank(r),
          transport(network.NewTransport(r)),
          scheduler({.clock = &network.clock(), .spin_us = 0, .trace_handlers = false}),
          router(scheduler, *transport,
                 {.self = r,
                  .job = JobId(1),
                  .epoch = Epoch(1),
                  .on_peer_down = [this](Rank peer,
                                         const Error& cause) { ring->OnPeerDown(peer, cause); },
                  .on_credit = [this](Rank, uint16_t channel) { ring->OnCredit(channel); },
                  .on_drop =
                      [this](DropCause, const Envelope&, const Error& error) {
                        errors.push_back("dropped: " + error.message);
                      }}),
          ring(std::make_unique<RankRing>(router, options, deadlines, ledger, &traffic)),
          stream(network.NewStream(scheduler)),
          scope(*stream) {
      scheduler.SetOnDown([this](const Down& down) { errors.push_back(down.error.message); });
      traffic.in_training_step = true;
    }
    ~Member() {
      ring.reset();
      stream.reset();
      transport->Close(0);
    }
    const Rank rank;
    bool runs = true;
    RankTraffic traffic{};
    std::vector<std::string> errors{};
    MemoryLedger ledger{};
    std::unique_ptr<Transport> transport;
    Scheduler scheduler;
    RankRouter router;
    std::unique_ptr<RankRing> ring;
    std::unique_ptr<Stream> stream;
    StreamScope scope;
  };

  Member& at(int rank) { return *ranks_[static_cast<size_t>(rank)]; }
  void Pass() {
    for (auto& member : ranks_) {
      if (member->runs) member->scheduler.RunUntilIdle();
    }
    network_.Idle();
  }

  std::deque<PassEnd> ends_{};
  Network network_{};
  std::vector<std::unique_ptr<Member>> ranks_{};
};

}  // namespace troupe::testing
