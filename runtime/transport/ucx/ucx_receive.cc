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
UcxPeer* UcxLink::SourceOf(const Envelope& envelope) {
  UcxPeer* peer = Find(Rank(envelope.source_rank));
  if (peer != nullptr && peer->state == PeerState::kUp) {
    if (peer->nonce != NonceOf(envelope)) return nullptr;  // an earlier life of that rank
    peer->heard = true;
    return peer;
  }
  if (peer != nullptr && peer->state != PeerState::kUnconnected) return nullptr;  // T2
  if (num_early_ >= kMaxEarly || envelope.payload_bytes > kMaxEarlyPayloadBytes) return nullptr;
  if (peer == nullptr && !MakesKnown(envelope)) return nullptr;
  return &FindOrAdd(Rank(envelope.source_rank));
}

// Checks what is left to check, and takes the slot of a bulk.
bool UcxLink::Accept(UcxPeer& peer, const MessageFrame& frame, Arrival* arrival) {
  if (!peer.receiving.contains(frame.envelope.channel) && !MakesKnown(frame.envelope)) return false;
  ReceiveChannel& channel = peer.receiving[frame.envelope.channel];
  if (frame.envelope.sequence <= channel.last_sequence) return false;
  arrival->peer = &peer;
  arrival->envelope = frame.envelope;
  if (frame.envelope.num_bulk > 0 && !TakeSlot(peer, frame.envelope, arrival)) return false;
  channel.last_sequence = frame.envelope.sequence;
  return true;
}

bool UcxLink::TakeSlot(UcxPeer& peer, const Envelope& envelope, Arrival* arrival) {
  ReceiveChannel& channel = peer.receiving[envelope.channel];
  const SlotName name = SlotOf(envelope);
  const SlotRegion& region = name.generation == 0 || name.generation == channel.slots.generation
                                 ? channel.slots
                                 : channel.retired;
  if (name.generation != 0 && name.generation != region.generation) return false;
  if (!region.Fits(name.slot, envelope.bulk_bytes) || name.slot >= channel.busy.size() ||
      channel.busy[name.slot]) {
    return false;
  }
  channel.busy[name.slot] = true;
  arrival->slot = name.slot;
  arrival->bulk = region.Slot(name.slot, envelope.bulk_bytes);
  return true;
}

ucs_status_t UcxLink::OnMessage(void* arg, const void*, size_t header_bytes, void* data,
                                size_t num_bytes, const ucp_am_recv_param_t* param) {
  auto& self = *static_cast<UcxLink*>(arg);
  if (header_bytes != 0 || IsRendezvous(param)) return self.Drop();
  const auto frame = ParseMessage(Bytes(data, num_bytes));
  if (!frame.ok()) return self.Drop();
  const Envelope& envelope = frame->envelope;
  if (envelope.num_bulk > 0 && SlotOf(envelope).generation == 0) return self.Drop();
  UcxPeer* peer = self.SourceOf(envelope);
  Arrival arrival;
  if (peer == nullptr || !self.Accept(*peer, *frame, &arrival)) return self.Drop();
  ReceiveChannel& channel = peer->receiving[envelope.channel];
  if (peer->state == PeerState::kUp && channel.arrivals.empty()) {
    self.Deliver(*peer, envelope, frame->payload, self.BulkOf(arrival));
    return UCS_OK;
  }
  if (peer->state == PeerState::kUnconnected) ++self.num_early_;
  arrival.payload.assign(frame->payload.begin(), frame->payload.end());
  arrival.complete = true;
  channel.arrivals.push_back(std::move(arrival));
  return UCS_OK;
}

ucs_status_t UcxLink::OnBulk(void* arg, const void* header, size_t header_bytes, void* data,
                             size_t num_bytes, const ucp_am_recv_param_t* param) {
  auto& self = *static_cast<UcxLink*>(arg);
  const auto frame = ParseMessage(Bytes(header, header_bytes));
  if (!frame.ok() || frame->envelope.num_bulk != 1 || frame->envelope.bulk_bytes != num_bytes ||
      SlotOf(frame->envelope).generation != 0) {
    return self.Drop();
  }
  UcxPeer* peer = self.SourceOf(frame->envelope);
  Arrival taken;
  if (peer == nullptr || !self.Accept(*peer, *frame, &taken)) return self.Drop();
  taken.arrived_ns = SystemClock().NowNs();
  taken.payload.assign(frame->payload.begin(), frame->payload.end());
  if (peer->state == PeerState::kUnconnected) ++self.num_early_;
  ReceiveChannel& channel = peer->receiving[frame->envelope.channel];
  channel.arrivals.push_back(std::move(taken));
  Arrival& arrival = channel.arrivals.back();
  if (!IsRendezvous(param)) {
    if (num_bytes > 0) std::memcpy(arrival.bulk.data(), data, num_bytes);
    arrival.complete = true;
    self.DeliverArrivals(channel);
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
    self.DeliverArrivals(channel);
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
    const Arrival arrival = std::move(front);
    channel.arrivals.pop_front();
    if (arrival.failed || peer.state != PeerState::kUp) continue;  // T2
    Deliver(peer, arrival.envelope, arrival.payload, BulkOf(arrival), arrival.arrived_ns);
  }
}

void UcxLink::DeliverEarly(UcxPeer& peer) {
  for (auto& [number, channel] : peer.receiving) {
    for (Arrival& arrival : channel.arrivals) {
      --num_early_;
      if (NonceOf(arrival.envelope) == peer.nonce) continue;
      arrival.failed = true;
      ++num_dropped_;
    }
    DeliverArrivals(channel);
  }
}

Bulk UcxLink::BulkOf(const Arrival& arrival) {
  if (arrival.envelope.num_bulk == 0) return {};
  // Small enough that std::function needs no heap.
  return Bulk(arrival.bulk, [peer = arrival.peer, channel = arrival.envelope.channel,
                             slot = arrival.slot] { peer->link->FreeSlot(*peer, channel, slot); });
}

void UcxLink::FreeSlot(UcxPeer& peer, uint16_t number, uint32_t slot) {
  peer.receiving[number].busy[slot] = false;
  SendLink(peer, {.kind = LinkFrameKind::kCredit, .channel = number, .slot = slot});
}

void UcxLink::Deliver(UcxPeer& peer, const Envelope& envelope, std::span<const std::byte> payload,
                      Bulk bulk, int64_t arrived_ns) {
  peer.ever_heard = true;
  if (handlers_.on_message) handlers_.on_message({envelope, payload, std::move(bulk), arrived_ns});
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
  const auto channel = peer.sending.find(frame.channel);
  if (channel == peer.sending.end() || !channel->second.GiveBack(frame.slot)) {
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
