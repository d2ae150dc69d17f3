#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <new>

#include "runtime/transport/ucx/ucx_link.h"

namespace troupe {
namespace {

constexpr int64_t kMaxPendingFrames = 65'536;  // to one peer

}  // namespace

UcxPeer* UcxLink::Reachable(Rank to) const {
  UcxPeer* peer = Find(to);
  const bool takes =
      peer != nullptr && peer->state == PeerState::kUp && peer->num_pending < kMaxPendingFrames;
  return takes ? peer : nullptr;
}

[[gnu::noinline]] Error UcxLink::WhyUnreachable(Rank to) const {
  const UcxPeer* peer = Find(to);
  if (peer == nullptr || peer->state == PeerState::kUnconnected) {
    return MakeError(ErrorCode::kUnavailable, "rank {} is not connected to rank {}", options_.self,
                     to);
  }
  if (peer->state != PeerState::kUp) {
    return MakeError(ErrorCode::kPeerDown, "rank {} was lost: {}", to, peer->why_lost);
  }
  return MakeError(ErrorCode::kResourceExhausted,
                   "rank {} takes nothing: {} messages to it are pending; send less or wait", to,
                   peer->num_pending);
}

// One body with all that it calls but what is rare: where cores are near, a small message costs
// what is executed for it.
[[gnu::flatten]] Status UcxLink::Send(Rank to, const Envelope& envelope,
                                      std::span<const std::byte> payload) {
  UcxPeer* peer = Reachable(to);
  if (peer == nullptr) return WhyUnreachable(to);
  if (payload.size() > kMaxPayloadBytes) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "payload of {} bytes to rank {}: at most {}; use bulk", payload.size(), to,
                     kMaxPayloadBytes);
  }
  Frame* frame = NewMessage(*peer, peer->sending[envelope.channel], envelope, payload, {});
  peer->bytes_sent += static_cast<int64_t>(payload.size());
  return Launch(frame, FrameId::kMessage, {}, frame->bytes(), UCP_AM_SEND_FLAG_EAGER);
}

Status UcxLink::SendBulk(Rank to, const Envelope& envelope, std::span<const std::byte> payload,
                         std::span<const std::byte> bulk, std::function<void()> done) {
  UcxPeer* peer = Reachable(to);
  if (peer == nullptr) return WhyUnreachable(to);
  SendChannel& channel = peer->sending[envelope.channel];
  if (channel.free_slots.empty()) {  // T1
    return MakeError(ErrorCode::kResourceExhausted, "rank {}: no credit to rank {} on channel {}",
                     options_.self, to, envelope.channel);
  }
  if (sizeof(Envelope) + payload.size() > worker_.max_header_bytes()) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "payload of {} bytes beside bulk to rank {}: at most {}", payload.size(), to,
                     worker_.max_header_bytes() - sizeof(Envelope));
  }
  const uint32_t slot = channel.TakeSlot();
  const bool in_place = channel.slots.Fits(slot, bulk.size());
  const uint32_t generation = in_place ? channel.slots.generation : 0;
  Frame* frame = NewMessage(
      *peer, channel, envelope, payload,
      {.num_bulk = 1, .num_bytes = bulk.size(), .slot_generation = generation, .slot = slot});
  peer->bytes_sent += static_cast<int64_t>(payload.size() + bulk.size());
  if (!in_place) {
    frame->done = std::move(done);
    return Launch(frame, FrameId::kBulk, frame->bytes(), bulk, 0);
  }
  if (!bulk.empty()) {
    std::memcpy(channel.slots.Slot(slot, bulk.size()).data(), bulk.data(), bulk.size());
  }
  ++peer->num_in_place;
  RETURN_IF_ERROR(Launch(frame, FrameId::kMessage, {}, frame->bytes(), UCP_AM_SEND_FLAG_EAGER));
  finished_.push_back(std::move(done));
  return {};
}

UcxLink::Frame* UcxLink::NewFrame(UcxPeer& peer, size_t room_bytes) {
  if (spare_.empty()) spare_.push_back(&frames_.emplace_back());
  Frame* frame = spare_.back();
  spare_.pop_back();
  frame->peer = &peer;
  if (frame->room.size() < room_bytes) frame->room.resize(room_bytes);
  return frame;
}

UcxLink::Frame* UcxLink::NewMessage(UcxPeer& peer, SendChannel& channel, const Envelope& envelope,
                                    std::span<const std::byte> payload, const BulkPlace& bulk) {
  const uint32_t checksum = PayloadChecksum(payload);
  Frame* frame = NewFrame(peer, sizeof(Envelope) + payload.size());
  auto* sent = new (frame->room.data()) Envelope(envelope);
  sent->source_rank = options_.self.value;
  sent->payload_checksum = checksum;
  sent->sequence = ++channel.last_sequence;
  sent->nonce = nonce_;
  sent->num_bulk = bulk.num_bulk;
  sent->bulk_bytes = bulk.num_bytes;
  sent->slot_generation = bulk.slot_generation;
  sent->slot = bulk.slot;
  ShortenHeader(sent);
  const size_t header_bytes = sent->header_bytes;
  frame->num_bytes = header_bytes + payload.size();
  if (!payload.empty()) {
    std::memcpy(frame->room.data() + header_bytes, payload.data(), payload.size());
  }
  return frame;
}

// An error means that nothing was sent and that `done` will not be called.
Status UcxLink::Launch(Frame* frame, FrameId id, std::span<const std::byte> header,
                       std::span<const std::byte> data, uint32_t flags) {
  UcxPeer& peer = *frame->peer;
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = flags;
  param.cb.send = &UcxLink::OnSent;
  param.user_data = frame;
  const ucs_status_ptr_t request =
      ucp_am_send_nbx(peer.endpoint, static_cast<unsigned>(id), header.data(), header.size(),
                      data.data(), data.size(), &param);
  peer.sent = true;
  if (UCS_PTR_IS_PTR(request)) {
    frame->in_flight = true;
    ++peer.num_pending;
    return {};
  }
  if (UCS_PTR_IS_ERR(request)) {
    frame->done = nullptr;
    Retire(frame);
    BeginLoss(peer, fmt::format("sending failed: {}", ucs_status_string(UCS_PTR_STATUS(request))));
    return MakeError(ErrorCode::kPeerDown, "rank {} was lost: {}", peer.rank, peer.why_lost);
  }
  Retire(frame);
  return {};
}

void UcxLink::OnSent(void* request, ucs_status_t status, void* user_data) {
  auto* frame = static_cast<Frame*>(user_data);
  UcxPeer& peer = *frame->peer;
  ucp_request_free(request);
  frame->in_flight = false;
  --peer.num_pending;
  peer.link->Retire(frame);
  if (status != UCS_OK) {
    peer.link->BeginLoss(peer, fmt::format("sending failed: {}", ucs_status_string(status)));
  }
}

void UcxLink::Retire(Frame* frame) {
  constexpr size_t kKeptBytes = 64 << 10;
  if (frame->done) finished_.push_back(std::exchange(frame->done, nullptr));
  if (frame->room.size() > kKeptBytes) frame->room = {};
  spare_.push_back(frame);
}

void UcxLink::SendLink(UcxPeer& peer, LinkFrame link_frame) {
  if (peer.state != PeerState::kUp || closed_) return;
  link_frame.source_rank = options_.self.value;
  link_frame.nonce = nonce_;
  Frame* frame = NewFrame(peer, sizeof(LinkFrame));
  frame->num_bytes = sizeof(LinkFrame);
  std::memcpy(frame->room.data(), &link_frame, sizeof(LinkFrame));
  // A failure is the loss of the peer, which Progress reports.
  (void)Launch(frame, FrameId::kLink, {}, frame->bytes(), UCP_AM_SEND_FLAG_EAGER);
}

void UcxLink::Announce(UcxPeer& peer) {
  peer.receiving.ForEach([&](uint16_t number, const ReceiveChannel& channel) {
    AnnounceChannel(peer, number, channel);
  });
}

void UcxLink::AnnounceChannel(UcxPeer& peer, uint16_t number, const ReceiveChannel& channel) {
  if (!peer.shares_memory || channel.slots.generation == 0) return;
  SendLink(peer, {.kind = LinkFrameKind::kSlots,
                  .channel = number,
                  .generation = channel.slots.generation,
                  .num_slots = channel.slots.num_slots,
                  .slot_bytes = channel.slots.slot_bytes,
                  .stride_bytes = channel.slots.stride_bytes,
                  .process_id = static_cast<int32_t>(getpid()),
                  .descriptor = channel.slots.memory.descriptor()});
}

}  // namespace troupe
