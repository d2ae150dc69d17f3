#include "runtime/sim/sim_transport.h"

#include <fmt/format.h>

#include <algorithm>

namespace troupe {

SimTransport::SimTransport(SimNetwork& network, Rank rank) : network_(network), rank_(rank) {}

SimTransport::~SimTransport() {
  SimTransport::Close(0);
  network_.transports_.erase(rank_);
}

std::string SimTransport::LocalAddress() const { return fmt::format("sim:{}", rank_); }

Status SimTransport::Connect(Rank peer, std::string_view address) {
  if (address != fmt::format("sim:{}", peer)) {
    return MakeError(ErrorCode::kUnavailable, "rank {}: '{}' is not the address of rank {}", rank_,
                     address, peer);
  }
  peers_.try_emplace(peer);
  return {};
}

Status SimTransport::PostSlots(Rank from, uint16_t channel, int num_slots, int64_t slot_bytes) {
  if (channel == 0 || num_slots < 1 || slot_bytes < 0) {
    return MakeError(ErrorCode::kInvalidSpec, "rank {}: {} slots of {} bytes on channel {}", rank_,
                     num_slots, slot_bytes, channel);
  }
  Slots& slots = slots_[{from, channel}];
  slots.num_slots = num_slots;
  slots.slot_bytes = slot_bytes;
  return {};
}

void SimTransport::SetCredits(Rank to, uint16_t channel, int num_slots) {
  credits_[{to, channel}] = num_slots;
}

int SimTransport::Credits(Rank to, uint16_t channel) const {
  const auto found = credits_.find({to, channel});
  return found == credits_.end() ? 0 : found->second;
}

Result<SimTransport::Peer*> SimTransport::PeerToSendTo(Rank to) {
  const auto found = peers_.find(to);
  if (found == peers_.end()) {
    return MakeError(ErrorCode::kUnavailable, "rank {} is not connected to rank {}", rank_, to);
  }
  if (found->second.lost) return MakeError(ErrorCode::kPeerDown, "rank {} was lost", to);
  return &found->second;
}

Status SimTransport::Send(Rank to, const Envelope& envelope, std::span<const std::byte> payload) {
  ASSIGN_OR_RETURN(Peer * peer, PeerToSendTo(to));
  return Post(*peer, to, envelope, payload, {}, 0);
}

Status SimTransport::SendBulk(Rank to, const Envelope& envelope, std::span<const std::byte> payload,
                              std::span<const std::byte> bulk, std::function<void()> done) {
  ASSIGN_OR_RETURN(Peer * peer, PeerToSendTo(to));
  int& credits = credits_[{to, envelope.channel}];
  if (credits <= 0) {  // T1
    return MakeError(ErrorCode::kResourceExhausted, "rank {}: no credit to rank {} on channel {}",
                     rank_, to, envelope.channel);
  }
  --credits;
  const uint64_t ticket = ++last_ticket_;
  pending_[ticket] = {to, std::move(done)};
  return Post(*peer, to, envelope, payload, bulk, ticket);
}

Status SimTransport::Post(Peer& peer, Rank to, Envelope envelope,
                          std::span<const std::byte> payload, std::span<const std::byte> bulk,
                          uint64_t ticket) {
  envelope.source_rank = rank_.value;
  envelope.sequence = ++peer.sequence[envelope.channel];
  envelope.num_bulk = ticket != 0 ? 1 : 0;
  envelope.bulk_bytes = bulk.size();
  const auto num_bytes = static_cast<int64_t>(payload.size() + bulk.size());
  peer.bytes_sent += num_bytes;
  if (closed_) return {};  // killed: it does not know that nobody hears it
  network_.Dispatch(to,
                    {.what = What::kMessage,
                     .from = rank_,
                     .channel = envelope.channel,
                     .ticket = ticket,
                     .envelope = envelope,
                     .payload = {payload.begin(), payload.end()},
                     .bulk = {bulk.begin(), bulk.end()}},
                    num_bytes);
  return {};
}

int SimTransport::Progress() {
  int num_events = 0;
  while (!events_.empty() && events_.begin()->first.first <= network_.clock_.NowNs()) {
    auto event = events_.extract(events_.begin());
    Happen(std::move(event.mapped()));
    ++num_events;
  }
  return num_events;
}

bool SimTransport::Arm() {
  return events_.empty() || events_.begin()->first.first > network_.clock_.NowNs();
}

void SimTransport::Happen(SimNetwork::Event event) {
  const auto peer = peers_.find(event.from);
  if (peer != peers_.end() && peer->second.lost) return;  // T2
  switch (event.what) {
    case What::kMessage:
      Arrive(std::move(event));
      break;
    case What::kSent: {
      auto pending = pending_.extract(event.ticket);
      if (!pending.empty() && pending.mapped().done) pending.mapped().done();
      break;
    }
    case What::kCredit:
      ++credits_[{event.from, event.channel}];
      if (handlers_.on_credit) handlers_.on_credit(event.from, event.channel);
      break;
    case What::kLost:
      LosePeer(event.from);
      break;
  }
}

void SimTransport::Arrive(SimNetwork::Event event) {
  const Rank from = event.from;
  Delivery delivery{.envelope = event.envelope, .payload = event.payload, .bulk = {}};
  if (event.ticket != 0) {
    Slots& slots = slots_[{from, event.channel}];
    CHECK(slots.in_use < slots.num_slots && std::ssize(event.bulk) <= slots.slot_bytes,
          "rank {}: {} bytes from rank {} on channel {} fit no slot", rank_, event.bulk.size(),
          from, event.channel);
    ++slots.in_use;
    auto slot = std::make_shared<std::vector<std::byte>>(std::move(event.bulk));
    const std::span<std::byte> bytes(*slot);
    delivery.bulk = Bulk(bytes, [this, from, channel = event.channel, slot = std::move(slot)] {
      --slots_[{from, channel}].in_use;
      if (!closed_) {
        network_.Dispatch(from, {.what = What::kCredit, .from = rank_, .channel = channel}, 0);
      }
    });
    network_.Dispatch(from, {.what = What::kSent, .from = rank_, .ticket = event.ticket}, 0);
  }
  if (handlers_.on_message) handlers_.on_message(std::move(delivery));
}

void SimTransport::LosePeer(Rank peer) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return;
  found->second.lost = true;
  std::vector<std::function<void()>> done;
  for (auto it = pending_.begin(); it != pending_.end();) {
    if (it->second.to == peer) {
      done.push_back(std::move(it->second.done));
      it = pending_.erase(it);
    } else {
      ++it;
    }
  }
  for (auto& each : done) {
    if (each) each();
  }
  if (handlers_.on_peer_down) {
    handlers_.on_peer_down(
        peer, MakeError(ErrorCode::kPeerDown, "rank {}: the link to rank {} is dead", rank_, peer));
  }
}

int64_t SimTransport::BytesSentTo(Rank peer) const {
  const auto found = peers_.find(peer);
  return found == peers_.end() ? 0 : found->second.bytes_sent;
}

void SimTransport::Close(int) {
  if (!closed_) network_.Kill(rank_);  // to its peers it is the same
  for (auto& [ticket, pending] : std::exchange(pending_, {})) {
    if (pending.done) pending.done();
  }
  peers_.clear();
}

}  // namespace troupe
