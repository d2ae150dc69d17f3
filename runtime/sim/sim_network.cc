#include "runtime/sim/sim_network.h"

#include <algorithm>

#include "runtime/base/random.h"
#include "runtime/sim/sim_transport.h"

namespace troupe {

SimNetwork::SimNetwork(VirtualClock& clock, SimNetworkOptions options)
    : clock_(clock), options_(options), key_(RandomKey(options.seed, "sim.network")) {
  CHECK(options.min_latency_ns >= 0 && options.max_latency_ns >= options.min_latency_ns);
  CHECK(options.bytes_per_us > 0);
}

SimNetwork::~SimNetwork() {
  CHECK(transports_.empty(), "a simulated transport outlives its network");
}

std::unique_ptr<Transport> SimNetwork::NewTransport(Rank rank) {
  auto transport = std::make_unique<SimTransport>(*this, rank);
  CHECK(transports_.emplace(rank, transport.get()).second, "rank {} has a transport already", rank);
  return transport;
}

int64_t SimNetwork::LatencyNs() {
  const auto range = static_cast<double>(options_.max_latency_ns - options_.min_latency_ns);
  return options_.min_latency_ns + static_cast<int64_t>(UniformAt(key_, draws_++) * range);
}

void SimNetwork::Dispatch(Rank to, Event event, int64_t num_bytes) {
  const auto cut = cut_.find({event.from, to});
  if (cut != cut_.end()) {
    cut->second.push_back({to, num_bytes, std::move(event)});
    return;
  }
  const auto receiver = transports_.find(to);
  if (receiver == transports_.end()) return;  // it has died; the sender will hear of it
  const int64_t arrival_ns =
      clock_.NowNs() + LatencyNs() + num_bytes * 1000 / options_.bytes_per_us;
  int64_t& last_ns = last_arrival_ns_[{event.from, to, event.channel}];
  last_ns = std::max(last_ns, arrival_ns);
  receiver->second->events_.emplace(std::pair(last_ns, order_++), std::move(event));
}

void SimNetwork::TellLost(Rank who, Rank peer, int64_t at_ns) {
  const auto told = transports_.find(who);
  if (told == transports_.end()) return;
  told->second->events_.emplace(std::pair(at_ns, order_++),
                                Event{.what = What::kLost, .from = peer});
}

void SimNetwork::Kill(Rank rank) {
  const auto dead = transports_.find(rank);
  if (dead == transports_.end()) return;
  dead->second->closed_ = true;
  dead->second->events_.clear();
  for (const auto& [other, transport] : transports_) {
    if (other == rank || !transport->peers_.contains(rank)) continue;
    // Behind a cut the news does not travel either, and silence is noticed later.
    const bool silent = cut_.contains({rank, other});
    const int64_t delay_ns = silent ? options_.detection_ms * 1'000'000 : LatencyNs();
    TellLost(other, rank, clock_.NowNs() + delay_ns);
  }
}

void SimNetwork::Cut(Rank from, Rank to) {
  if (!cut_.try_emplace({from, to}).second) return;
  // What is under way already is held too.
  const auto receiver = transports_.find(to);
  if (receiver == transports_.end()) return;
  auto& events = receiver->second->events_;
  for (auto it = events.begin(); it != events.end();) {
    if (it->second.from == from && it->second.what != What::kLost) {
      const auto num_bytes =
          static_cast<int64_t>(it->second.payload.size() + it->second.bulk.size());
      cut_[{from, to}].push_back({to, num_bytes, std::move(it->second)});
      it = events.erase(it);
    } else {
      ++it;
    }
  }
  // One direction is enough: acknowledgements are missing at one end, messages at the other.
  const int64_t noticed_ns = clock_.NowNs() + options_.detection_ms * 1'000'000;
  TellLost(from, to, noticed_ns);
  TellLost(to, from, noticed_ns);
}

void SimNetwork::Heal(Rank from, Rank to) {
  auto cut = cut_.extract({from, to});
  if (cut.empty()) return;
  // In time: nobody has noticed, and what was held goes on in its order.
  for (const auto& [who, peer] : {Link{from, to}, Link{to, from}}) {
    const auto told = transports_.find(who);
    if (told == transports_.end() || cut_.contains({to, from})) continue;
    const auto dead = transports_.find(peer);
    if (dead == transports_.end() || dead->second->closed_) continue;
    std::erase_if(told->second->events_, [&, p = peer](const auto& entry) {
      return entry.second.what == What::kLost && entry.second.from == p;
    });
  }
  for (Held& held : cut.mapped()) Dispatch(held.to, std::move(held.event), held.num_bytes);
}

int64_t SimNetwork::NextEventNs(int64_t after_ns) const {
  int64_t next_ns = kNever;
  for (const auto& [rank, transport] : transports_) {
    const auto next = transport->events_.lower_bound({after_ns + 1, 0});
    if (next != transport->events_.end()) next_ns = std::min(next_ns, next->first.first);
  }
  return next_ns;
}

}  // namespace troupe
