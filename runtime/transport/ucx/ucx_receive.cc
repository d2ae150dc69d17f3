#include <fmt/format.h>

#include <cstring>

#include "runtime/base/clock.h"
#include "runtime/transport/ucx/ucx_link.h"

namespace troupe {
namespace {

constexpr int64_t kMaxEarly = 1024;             // messages of ranks that are not connected
constexpr size_t kMaxEarlyPayloadBytes = 4096;  // of one of them

std::span<const std::byte> Bytes(const void* start, size_t num_bytes) {
  return {static_cast<const std::byte*>(start), num_bytes};
}
// Whether a message may be the first of its rank or channel: bulk goes where slots were posted, and
// whoever invents names leaves nothing behind but messages that are kept, which num_early_ counts.
bool MakesKnown(const Envelope& envelope) {
  return envelope.num_bulk == 0 && envelope.sequence > 0;
}
bool IsRendezvous(const ucp_am_recv_param_t* param) {
  return (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
}

}  // namespace

// The peer that a message may come from, or null.
UcxPeer* UcxLink::SourceOf(const Delivery& message) {
  const Envelope& envelope = message.envelope;
  UcxPeer* peer = Find(Rank(envelope.source_rank));
  if (peer != nullptr && peer->state == PeerState::kUp) {
    if (peer->nonce != envelope.nonce) return nullptr;  // an earlier life of that rank
    peer->heard = true;
    return peer;
  }
  if (peer != nullptr && peer->state != PeerState::kUnconnected) return nullptr;  // T2
  if (num_early_ >= kMaxEarly || message.payload.size() > kMaxEarlyPayloadBytes) return nullptr;
  if (peer == nullptr && !MakesKnown(envelope)) return nullptr;
  return &FindOrAdd(Rank(envelope.source_rank));
}

// Checks what is left to check, and takes the slot of a bulk. The channel it came on, or null.
ReceiveChannel* UcxLink::Accept(UcxPeer& peer, const Envelope& envelope,
                                std::span<std::byte>* bulk) {
  ReceiveChannel* channel = peer.receiving.Find(envelope.channel);
  if (channel == nullptr) {
    if (!MakesKnown(envelope)) return nullptr;
    channel = &peer.receiving[envelope.channel];
  }
  if (envelope.sequence <= channel->last_sequence) return nullptr;
  if (envelope.num_bulk > 0 && !TakeSlot(*channel, envelope, bulk)) return nullptr;
  channel->last_sequence = envelope.sequence;
  return channel;
}

bool UcxLink::TakeSlot(ReceiveChannel& channel, const Envelope& envelope,
                       std::span<std::byte>* bulk) {
  const uint32_t generation = envelope.slot_generation;
  const uint32_t slot = envelope.slot;
  const SlotRegion& region =
      generation == 0 || generation == channel.slots.generation ? channel.slots : channel.retired;
  if (generation != 0 && generation != region.generation) return false;
  if (!region.Fits(slot, envelope.bulk_bytes) || slot >= channel.busy.size() ||
      channel.busy[slot]) {
    return false;
  }
  channel.busy[slot] = true;
  *bulk = region.Slot(slot, envelope.bulk_bytes);
  return true;
}

// One body with all that it calls but what is rare, as Send.
[[gnu::flatten]] ucs_status_t UcxLink::OnMessage(void* arg, const void*, size_t header_bytes,
                                                 void* data, size_t num_bytes,
                                                 const ucp_am_recv_param_t* param) {
  auto& self = *static_cast<UcxLink*>(arg);
  if (header_bytes != 0 || IsRendezvous(param)) return self.Drop();
  Delivery message;
  if (!ParseMessage(Bytes(data, num_bytes), &message).ok()) return self.Drop();
  const Envelope& envelope = message.envelope;
  if (envelope.num_bulk > 0 && envelope.slot_generation == 0) return self.Drop();
  UcxPeer* peer = self.SourceOf(message);
  std::span<std::byte> bulk;
  ReceiveChannel* channel = peer == nullptr ? nullptr : self.Accept(*peer, envelope, &bulk);
  if (channel == nullptr) return self.Drop();
  if (peer->state == PeerState::kUp && channel->arrivals.empty()) {
    self.Deliver(*peer, std::move(message), bulk);
    return UCS_OK;
  }
  self.Keep(*peer, *channel, message, bulk).complete = true;
  return UCS_OK;
}

// Until its turn comes, or its bulk.
[[gnu::noinline]] Arrival& UcxLink::Keep(UcxPeer& peer, ReceiveChannel& channel,
                                         const Delivery& message, std::span<std::byte> bulk) {
  if (peer.state == PeerState::kUnconnected) ++num_early_;
  return channel.arrivals.emplace_back(
      Arrival{.peer = &peer,
              .envelope = message.envelope,
              .payload = {message.payload.begin(), message.payload.end()},
              .bulk = bulk,
              .arrived_ns = message.arrived_ns});
}

ucs_status_t UcxLink::OnBulk(void* arg, const void* header, size_t header_bytes, void* data,
                             size_t num_bytes, const ucp_am_recv_param_t* param) {
  auto& self = *static_cast<UcxLink*>(arg);
  Delivery message;
  const Envelope& envelope = message.envelope;
  if (!ParseMessage(Bytes(header, header_bytes), &message).ok() || envelope.num_bulk != 1 ||
      envelope.bulk_bytes != num_bytes || envelope.slot_generation != 0) {
    return self.Drop();
  }
  UcxPeer* peer = self.SourceOf(message);
  std::span<std::byte> bulk;
  ReceiveChannel* channel = peer == nullptr ? nullptr : self.Accept(*peer, envelope, &bulk);
  if (channel == nullptr) return self.Drop();
  message.arrived_ns = SystemClock().NowNs();
  Arrival& arrival = self.Keep(*peer, *channel, message, bulk);
  if (!IsRendezvous(param)) {
    if (num_bytes > 0) std::memcpy(arrival.bulk.data(), data, num_bytes);
    arrival.complete = true;
    self.DeliverArrivals(*channel);
    return UCS_OK;
  }
  ucp_request_param_t fetch{};
  fetch.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  fetch.cb.recv_am = &UcxLink::OnFetched;
  fetch.user_data = &arrival;  // a deque's items stay where they are while its ends change
  const ucs_status_ptr_t request = ucp_am_recv_data_nbx(
      self.worker_.get(), data, arrival.bulk.data(), arrival.bulk.size(), &fetch);
  if (UCS_PTR_IS_ERR(request)) {
    arrival.complete = arrival.failed = true;
    self.DeliverArrivals(*channel);
  }
  return UCS_INPROGRESS;  // the descriptor is the fetch's
}

void UcxLink::OnFetched(void* request, ucs_status_t status, size_t, void* user_data) {
  auto& arrival = *static_cast<Arrival*>(user_data);
  ucp_request_free(request);
  arrival.complete = true;
  arrival.failed = status != UCS_OK;
  UcxPeer& peer = *arrival.peer;
  if (arrival.failed) {
    peer.link->BeginLoss(peer, fmt::format("receiving failed: {}", ucs_status_string(status)));
  }
  peer.link->DeliverArrivals(peer.receiving[arrival.envelope.channel]);
}

void UcxLink::DeliverArrivals(ReceiveChannel& channel) {  // U2
  while (!channel.arrivals.empty() && channel.arrivals.front().complete) {
    Arrival& front = channel.arrivals.front();
    UcxPeer& peer = *front.peer;
    if (peer.state == PeerState::kUnconnected) return;  // U4
    Arrival arrival = std::move(front);
    channel.arrivals.pop_front();
    if (arrival.failed || peer.state != PeerState::kUp) continue;  // T2
    Deliver(peer,
            {.envelope = arrival.envelope,
             .payload = arrival.payload,
             .arrived_ns = arrival.arrived_ns},
            arrival.bulk);
  }
}

void UcxLink::DeliverEarly(UcxPeer& peer) {
  peer.receiving.ForEach([&](uint16_t, ReceiveChannel& channel) {
    for (Arrival& arrival : channel.arrivals) {
      --num_early_;
      if (arrival.envelope.nonce == peer.nonce) continue;
      arrival.failed = true;
      ++num_dropped_;
    }
    DeliverArrivals(channel);
  });
}

void UcxLink::FreeSlot(UcxPeer& peer, uint16_t number, uint32_t slot) {
  peer.receiving[number].busy[slot] = false;
  SendLink(peer, {.kind = LinkFrameKind::kCredit, .channel = number, .slot = slot});
}

void UcxLink::Deliver(UcxPeer& peer, Delivery&& message, std::span<std::byte> bulk) {
  peer.ever_heard = true;
  if (!handlers_.on_message) return;
  const Envelope& envelope = message.envelope;
  if (envelope.num_bulk > 0) {
    // Small enough that std::function needs no heap.
    message.bulk = Bulk(bulk, [peer = &peer, channel = envelope.channel, slot = envelope.slot] {
      peer->link->FreeSlot(*peer, channel, slot);
    });
  }
  handlers_.on_message(std::move(message));
}

ucs_status_t UcxLink::OnLink(void* arg, const void*, size_t header_bytes, void* data,
                             size_t num_bytes, const ucp_am_recv_param_t* param) {
  auto& self = *static_cast<UcxLink*>(arg);
  if (header_bytes != 0 || IsRendezvous(param)) return self.Drop();
  const auto parsed = ParseLinkFrame(Bytes(data, num_bytes));
  if (!parsed.ok()) return self.Drop();
  const LinkFrame& frame = *parsed;
  UcxPeer* peer = self.Find(Rank(frame.source_rank));
  if (peer == nullptr || peer->state == PeerState::kUnconnected) return UCS_OK;  // it says it again
  if (peer->state != PeerState::kUp || peer->nonce != frame.nonce) return self.Drop();
  peer->heard = peer->ever_heard = true;
  switch (frame.kind) {
    case LinkFrameKind::kHello:
      self.Announce(*peer);
      break;
    case LinkFrameKind::kHeartbeat:
      break;
    case LinkFrameKind::kCredit:
      self.TakeCredit(*peer, frame);
      break;
    case LinkFrameKind::kSlots:
      self.MapSlots(*peer, frame);
      break;
    case LinkFrameKind::kGoodbye:
      self.BeginLoss(*peer, "it closed its transport");
      break;
  }
  return UCS_OK;
}

void UcxLink::TakeCredit(UcxPeer& peer, const LinkFrame& frame) {
  SendChannel* channel = peer.sending.Find(frame.channel);
  if (channel == nullptr || !channel->GiveBack(frame.slot)) {
    Drop();
    return;
  }
  returned_credits_.emplace_back(&peer, frame.channel);
}

// Where mapping is refused (another user, a container), bulk goes by UCX as between hosts.
void UcxLink::MapSlots(UcxPeer& peer, const LinkFrame& frame) {
  SlotRegion& slots = peer.sending[frame.channel].slots;
  if (!peer.shares_memory || frame.process_id != peer.process_id ||
      frame.generation <= slots.generation) {
    return;
  }
  auto memory = SharedRegion::Map(frame.process_id, frame.descriptor,
                                  int64_t{frame.num_slots} * frame.stride_bytes);
  if (!memory.ok()) {
    Drop();
    return;
  }
  slots = SlotRegion{.memory = *std::move(memory),
                     .generation = frame.generation,
                     .num_slots = frame.num_slots,
                     .slot_bytes = frame.slot_bytes,
                     .stride_bytes = frame.stride_bytes};
}

}  // namespace troupe
