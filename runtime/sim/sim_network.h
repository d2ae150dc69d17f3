// SimNetwork: ranks that exchange messages in virtual time. Every latency and every fault comes
// from the seed, so a run is a function of (seed, program).
//
// What a real transport does to a message, and no more: links keep the order of a channel, delay by
// a random latency and by size, and never lose, double or corrupt a single message. They die: a
// killed rank is noticed after a latency; a cut link is healed in time, and then its messages are
// only late, or both ends call it dead once it has been cut for `detection_ms`.
//
// Thread: one. The network and the clock outlive its transports, a Bulk its receiver's transport.
//   V1. Nothing happens but in Progress of the rank it happens to, at or after its time.
//   V2. NextEventNs says when the next thing can happen; the clock's owner may advance up to it.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/sim/virtual_clock.h"
#include "runtime/transport/transport.h"

namespace troupe {

struct SimNetworkOptions {
  uint64_t seed = 0;
  int64_t min_latency_ns = 2'000;
  int64_t max_latency_ns = 50'000;
  int64_t bytes_per_us = 10'000;  // 10 GB/s
  int64_t detection_ms = 5'000;
};

class SimTransport;

class SimNetwork {
 public:
  SimNetwork(VirtualClock& clock, SimNetworkOptions options);
  ~SimNetwork();
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // One per rank at a time. Its address is "sim:RANK".
  std::unique_ptr<Transport> NewTransport(Rank rank);

  // As if the process of `rank` had died.
  void Kill(Rank rank);
  // Nothing that `from` sends reaches `to` until Heal. The other direction still works.
  void Cut(Rank from, Rank to);
  void Heal(Rank from, Rank to);

  // The time of the next event of any rank, or kNever. Events of the past wait for Progress; who
  // knows that a rank stands still asks for those after `after_ns`.
  int64_t NextEventNs(int64_t after_ns = -1) const;
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

 private:
  friend class SimTransport;
  using Link = std::pair<Rank, Rank>;  // from, to

  enum class What : uint8_t { kMessage, kSent, kCredit, kLost };
  struct Event {
    What what = What::kMessage;
    Rank from{};  // whose doing it is
    uint16_t channel = 0;
    uint64_t ticket = 0;  // kSent: which of the sender's bulks
    Envelope envelope{};
    std::vector<std::byte> payload{};
    std::vector<std::byte> bulk{};
  };
  struct Held {
    Rank to{};
    int64_t num_bytes = 0;
    Event event{};
  };

  // Puts the event under way on the link event.from -> to.
  void Dispatch(Rank to, Event event, int64_t num_bytes);
  void TellLost(Rank who, Rank peer, int64_t at_ns);
  int64_t LatencyNs();

  VirtualClock& clock_;
  const SimNetworkOptions options_;
  const uint64_t key_;
  uint64_t draws_ = 0;
  uint64_t order_ = 0;  // of dispatch: what breaks ties of time
  std::map<Rank, SimTransport*> transports_{};
  std::map<std::tuple<Rank, Rank, uint16_t>, int64_t> last_arrival_ns_{};
  std::map<Link, std::vector<Held>> cut_{};
};

}  // namespace troupe
