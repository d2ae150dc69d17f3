// Ranks of one process with groups over a transport: what the conformance suite runs on. `Network`
// is the transport's:
//
//   struct Network {
//     std::unique_ptr<Transport> NewTransport(Rank rank);
//     void Kill(Rank rank, Transport& its);   // its peers learn that its process died
//     Clock& clock();
//     std::unique_ptr<Stream> NewStream(Scheduler& scheduler);
//     void Idle();                            // between two rounds of all ranks
//     const MemoryLedger* lends;              // may be left out: nothing is lent
//   };
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "runtime/actor/stream_wait.h"
#include "runtime/collective/router_groups.h"
#include "runtime/sim/sim_network.h"
#include "runtime/transport/inproc/inproc_transport.h"
#include "runtime/transport/ucx/ucx_transport.h"
#include "tests/runtime/collective/element_types.h"
#include "tests/support/patience.h"

namespace troupe {

struct InprocWorldNetwork {
  std::unique_ptr<Transport> NewTransport(Rank rank) { return network.NewTransport(rank); }
  void Kill(Rank rank, Transport&) { network.Kill(rank); }
  Clock& clock() { return SystemClock(); }
  std::unique_ptr<Stream> NewStream(Scheduler& scheduler) {
    return std::make_unique<ThreadStream>(scheduler, "member", /*spin_us=*/0);
  }
  void Idle() {}
  InprocNetwork network{};
};

struct UcxWorldNetwork {
  std::unique_ptr<Transport> NewTransport(Rank rank) {
    auto made =
        UcxTransport::Create({.self = rank, .heartbeat_ms = 20, .silence_ms = silence_ms}, ledger);
    CHECK(made.ok(), "{}", made.error().message);
    return *std::move(made);
  }
  void Kill(Rank, Transport& transport) { transport.Close(0); }
  Clock& clock() { return SystemClock(); }
  std::unique_ptr<Stream> NewStream(Scheduler& scheduler) {
    return std::make_unique<ThreadStream>(scheduler, "member", /*spin_us=*/0);
  }
  void Idle() {}
  int silence_ms = 2000;
  MemoryLedger ledger{};
};

struct SimWorldNetwork {
  std::unique_ptr<Transport> NewTransport(Rank rank) { return network.NewTransport(rank); }
  void Kill(Rank rank, Transport&) { network.Kill(rank); }
  Clock& clock() { return virtual_clock; }
  std::unique_ptr<Stream> NewStream(Scheduler& scheduler) {
    return std::make_unique<InlineStream>(scheduler);
  }
  void Idle() { virtual_clock.AdvanceTo(virtual_clock.NowNs() + 1000); }
  VirtualClock virtual_clock{};
  SimNetwork network{virtual_clock, {.seed = 11}};
};

template <typename Network>
const MemoryLedger* LendsOf(const Network& network) {
  if constexpr (requires { network.lends; }) {
    return network.lends;
  } else {
    return nullptr;
  }
}

// One of the ranks: everything between its stream and its transport.
template <typename Network>
struct RouterMember {
  RouterMember(Network& network, Rank r)
      : rank(r),
        transport(network.NewTransport(r)),
        scheduler({.clock = &network.clock(), .spin_us = 0, .trace_handlers = false}),
        router(
            scheduler, *transport,
            {.self = r,
             .job = JobId(1),
             .epoch = Epoch(1),
             .on_peer_down = [this](Rank peer,
                                    const Error& cause) { groups.OnPeerDown(peer, cause); },
             .on_credit = [this](Rank peer, uint16_t channel) { groups.OnCredit(peer, channel); }}),
        // Small, so that little data is many blocks.
        groups(router, {.elements = testing::ElementTypes(),
                        .actor_index = 7,
                        .slots_per_peer = 2,
                        .slot_bytes = 1000,
                        .ledger = &ledger,
                        .lends = LendsOf(network),
                        .min_lent_bytes = 1}),
        stream(network.NewStream(scheduler)) {}
  const Rank rank;
  bool runs = true;
  MemoryLedger ledger{};
  std::unique_ptr<Transport> transport;
  Scheduler scheduler;
  RankRouter router;
  RouterGroups groups;
  std::unique_ptr<Stream> stream;
};

template <typename Network>
class RouterWorld {
 public:
  explicit RouterWorld(int size) {
    for (int rank = 0; rank < size; ++rank) {
      ranks_.push_back(std::make_unique<Member>(network_, Rank(rank)));
    }
    for (auto& from : ranks_) {
      for (auto& to : ranks_) {
        if (from == to) continue;
        CHECK(from->transport->Connect(to->rank, to->transport->LocalAddress()).ok());
      }
    }
  }

  int size() const { return static_cast<int>(ranks_.size()); }
  Scheduler& scheduler(int rank) { return at(rank).scheduler; }
  Stream& stream(int rank) { return *at(rank).stream; }
  RankRouter& router(int rank) { return at(rank).router; }
  RouterGroups& groups(int rank) { return at(rank).groups; }
  MemoryLedger& ledger(int rank) { return at(rank).ledger; }

  std::unique_ptr<Group> Open(GroupSpec spec, uint16_t channel) {
    auto opened = at(spec.self.value).groups.Open(spec, channel);
    CHECK(opened.ok(), "{}", opened.error().message);
    return *std::move(opened);
  }
  void Stop(int rank) { at(rank).runs = false; }  // it does nothing any more
  void Kill(int rank) {
    Stop(rank);
    network_.Kill(Rank(rank), *at(rank).transport);
  }
  template <typename Done>
  bool Until(Done done) {
    return testing::DrivenUntil(done, [this] {
      for (auto& member : ranks_) {
        if (member->runs) member->scheduler.RunUntilIdle();
      }
      network_.Idle();
    });
  }

 private:
  using Member = RouterMember<Network>;
  Member& at(int rank) { return *ranks_[static_cast<size_t>(rank)]; }

  Network network_{};
  std::vector<std::unique_ptr<Member>> ranks_{};
};

}  // namespace troupe
