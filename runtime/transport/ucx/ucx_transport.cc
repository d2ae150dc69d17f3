#include "runtime/transport/ucx/ucx_transport.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/slot_stride.h"
#include "runtime/transport/ucx/ucx_link.h"

namespace troupe {
namespace {

constexpr int kPassesPerCheck = 32;
constexpr int64_t kMsNs = 1'000'000;
constexpr int64_t kCheckNs = 5 * kMsNs;
constexpr int64_t kLossNs = 500 * kMsNs;  // for a lost peer's requests to come back

}  // namespace

Result<std::unique_ptr<Transport>> UcxTransport::Create(const UcxTransportOptions& options,
                                                        MemoryLedger& ledger) {
  auto link = std::make_unique<UcxLink>(options, ledger);
  RETURN_IF_ERROR(link->Open());
  return std::unique_ptr<Transport>(std::move(link));
}

Status UcxLink::Open() {
  ASSIGN_OR_RETURN(worker_, UcxWorker::Create(options_.warn));
  RETURN_IF_ERROR(wakeup_.Open(worker_.event_fd(), std::max(options_.heartbeat_ms, 1)));
  std::random_device random;
  nonce_ = uint64_t{random()} << 32 | random();
  host_key_ = LocalHostKey();
  last_check_ns_ = SystemClock().NowNs();
  const auto handle = [this](FrameId id, ucp_am_recv_callback_t callback) {
    return worker_.Handle(static_cast<unsigned>(id), callback, this);
  };
  RETURN_IF_ERROR(handle(FrameId::kMessage, &UcxLink::OnMessage));
  RETURN_IF_ERROR(handle(FrameId::kBulk, &UcxLink::OnBulk));
  return handle(FrameId::kLink, &UcxLink::OnLink);
}

std::string UcxLink::LocalAddress() const {
  return EncodeAddress({.rank = options_.self,
                        .nonce = nonce_,
                        .host_key = host_key_,
                        .process_id = static_cast<int32_t>(getpid()),
                        .worker = worker_.address()});
}

UcxPeer& UcxLink::FindOrAdd(Rank rank) {
  CHECK(rank.value >= 0 && rank.value < kMaxRanks, "no rank {}", rank);
  const auto index = static_cast<size_t>(rank.value);
  if (index >= peers_.size()) peers_.resize(index + 1);
  auto& peer = peers_[index];
  if (peer != nullptr && peer->state == PeerState::kDown) {
    former_.push_back(std::exchange(peer, nullptr));
  }
  if (peer == nullptr) {
    peer = std::make_unique<UcxPeer>();
    peer->link = this;
    peer->rank = rank;
  }
  return *peer;
}

Status UcxLink::Connect(Rank to, std::string_view address) {
  auto parsed = ParseAddress(address);
  if (!parsed.ok() || parsed->rank != to) {
    return MakeError(ErrorCode::kUnavailable,
                     "rank {}: the {} bytes given for rank {} are not its address", options_.self,
                     address.size(), to);
  }
  UcxPeer& peer = FindOrAdd(to);
  if (peer.state != PeerState::kUnconnected) {
    return MakeError(ErrorCode::kUnavailable, "rank {} is connected to rank {} already",
                     options_.self, to);
  }
  auto endpoint = worker_.Connect(parsed->worker, &UcxLink::OnEndpointError, &peer);
  if (!endpoint.ok()) {  // told from Progress, as any loss
    peer.state = PeerState::kUp;
    peer.code_lost = endpoint.error().code;
    BeginLoss(peer, std::move(endpoint).error().message);
    return {};
  }
  peer.endpoint = *endpoint;
  peer.nonce = parsed->nonce;
  peer.process_id = parsed->process_id;
  peer.state = PeerState::kUp;
  peer.last_heard_ns = SystemClock().NowNs();
  peer.shares_memory = LaneOfDevice(MessageDevice(peer.endpoint)) == Lane::kSharedMemory &&
                       parsed->host_key == host_key_ && host_key_ != 0;
  if (peer.shares_memory) peer.process_fd = wakeup_.WatchProcess(peer.process_id);
  SendLink(peer, {.kind = LinkFrameKind::kHello});
  Announce(peer);
  DeliverEarly(peer);
  return {};
}

Status UcxLink::PostSlots(Rank from, uint16_t number, int num_slots, int64_t slot_bytes) {
  if (number == 0 || num_slots < 1 || num_slots > kMaxSlotsPerChannel || slot_bytes < 0 ||
      slot_bytes > kMaxSlotBytes || from.value < 0 || from.value >= kMaxRanks) {
    return MakeError(ErrorCode::kInvalidSpec, "rank {}: {} slots of {} bytes on channel {}",
                     options_.self, num_slots, slot_bytes, number);
  }
  UcxPeer& peer = FindOrAdd(from);
  ReceiveChannel& channel = peer.receiving[number];
  if (std::find(channel.busy.begin(), channel.busy.end(), true) != channel.busy.end()) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "rank {}: channel {} from rank {} has bulk in use; let it go before new slots",
                     options_.self, number, from);
  }
  const int64_t stride_bytes = SlotStrideBytes(slot_bytes);
  SlotRegion slots{.memory = {},
                   .generation = channel.slots.generation + 1,
                   .num_slots = static_cast<uint32_t>(num_slots),
                   .slot_bytes = slot_bytes,
                   .stride_bytes = stride_bytes};
  ASSIGN_OR_RETURN(slots.memory, SharedRegion::Create(num_slots * stride_bytes, &ledger_));
  channel.retired = std::exchange(channel.slots, std::move(slots));
  channel.busy.assign(std::max<size_t>(channel.busy.size(), static_cast<size_t>(num_slots)), false);
  AnnounceChannel(peer, number, channel);
  return {};
}

void UcxLink::SetCredits(Rank to, uint16_t channel, int num_slots) {
  FindOrAdd(to).sending[channel].SetSlots(std::min(num_slots, kMaxSlotsPerChannel));
}

int UcxLink::Credits(Rank to, uint16_t number) const {
  UcxPeer* peer = Find(to);
  if (peer == nullptr) return 0;
  const SendChannel* channel = peer->sending.Find(number);
  return channel == nullptr ? 0 : static_cast<int>(channel->free_slots.size());
}

int UcxLink::Progress() {
  if (closed_) return 0;
  // Once: what it delivered is handled before more is looked for.
  const auto events = static_cast<int>(ucp_worker_progress(worker_.get()));
  const bool rests = --passes_until_check_ > 0 && finished_.empty() && returned_credits_.empty() &&
                     closing_.empty();
  return rests ? events : events + ProgressOwn();
}

// What the link itself has to do, which is nothing in most passes.
int UcxLink::ProgressOwn() {
  int events = RunFinished();
  if (passes_until_check_ <= 0) {
    passes_until_check_ = kPassesPerCheck;
    CheckPeers();
  }
  if (!closing_.empty()) {
    events +=
        static_cast<int>(std::erase_if(closing_, [this](UcxPeer* p) { return FinishLoss(*p); }));
  }
  return events;
}

int UcxLink::RunFinished() {
  int events = 0;
  while (!finished_.empty() || !returned_credits_.empty()) {
    for (auto& done : std::exchange(finished_, {})) {
      if (done) done();
      ++events;
    }
    for (const auto& [peer, channel] : std::exchange(returned_credits_, {})) {
      if (handlers_.on_credit && peer->state == PeerState::kUp) {
        handlers_.on_credit(peer->rank, channel);
      }
      ++events;
    }
  }
  return events;
}

bool UcxLink::Arm() {
  if (closed_) return true;
  if (!finished_.empty() || !returned_credits_.empty() || !closing_.empty()) return false;
  wakeup_.TakeTick();
  passes_until_check_ = 0;  // whatever ends the sleep, look at the peers then
  return worker_.Arm();
}

std::string UcxLink::DeviceTo(Rank to) const {
  const UcxPeer* peer = Find(to);
  return peer == nullptr || peer->endpoint == nullptr ? "" : MessageDevice(peer->endpoint);
}

Lane UcxLink::LaneTo(Rank to) const { return LaneOfDevice(DeviceTo(to)); }

int64_t UcxLink::BytesSentTo(Rank to) const {
  const UcxPeer* peer = Find(to);
  return peer == nullptr ? 0 : peer->bytes_sent;
}

int64_t UcxLink::NumInPlace(Rank to) const {
  const UcxPeer* peer = Find(to);
  return peer == nullptr ? 0 : peer->num_in_place;
}

void UcxLink::OnEndpointError(void* arg, ucp_ep_h, ucs_status_t status) {
  auto* peer = static_cast<UcxPeer*>(arg);
  peer->link->BeginLoss(*peer, fmt::format("its connection broke: {}", ucs_status_string(status)));
}

void UcxLink::CheckPeers() {
  const int64_t now_ns = SystemClock().NowNs();
  const int64_t since_ns = now_ns - last_check_ns_;
  if (since_ns < kCheckNs) return;
  last_check_ns_ = now_ns;
  const bool late = since_ns > 2 * kMsNs * options_.heartbeat_ms;
  for (auto& peer : peers_) {
    if (peer == nullptr || peer->state != PeerState::kUp) continue;
    if (late) peer->last_heard_ns += since_ns;  // U3: this rank did not run
    CheckPeer(*peer, now_ns);
  }
}

void UcxLink::CheckPeer(UcxPeer& peer, int64_t now_ns) {
  if (std::exchange(peer.heard, false)) peer.last_heard_ns = now_ns;
  if (std::exchange(peer.sent, false)) peer.last_sent_ns = now_ns;
  const int64_t silent_ns = now_ns - peer.last_heard_ns;
  const bool due = now_ns - peer.last_sent_ns > options_.heartbeat_ms * kMsNs * 9 / 10;
  if (peer.process_fd >= 0 && UcxWakeup::HasEnded(peer.process_fd)) {
    BeginLoss(peer, "its process ended");
  } else if (peer.ever_heard && silent_ns > options_.silence_ms * kMsNs) {
    BeginLoss(peer, fmt::format("it was silent for {} ms", silent_ns / kMsNs));
  } else if (!peer.ever_heard && silent_ns > options_.connect_ms * kMsNs) {
    BeginLoss(peer, fmt::format("it did not connect within {} ms", options_.connect_ms));
  } else if (due && peer.num_pending == 0) {
    SendLink(peer, {.kind = LinkFrameKind::kHeartbeat});
  }
}

void UcxLink::BeginLoss(UcxPeer& peer, std::string why) {
  if (peer.state != PeerState::kUp || closed_) return;
  peer.state = PeerState::kClosing;
  peer.why_lost = std::move(why);
  peer.closing_since_ns = SystemClock().NowNs();
  closing_.push_back(&peer);
}

void UcxLink::CloseEndpoint(UcxPeer& peer, bool by_force) {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = by_force ? UCP_EP_CLOSE_FLAG_FORCE : 0;
  peer.close_request = ucp_ep_close_nbx(std::exchange(peer.endpoint, nullptr), &param);
}

// Closes the endpoint by force, waits for what UCX holds, then tells (T2). True when it has told.
bool UcxLink::FinishLoss(UcxPeer& peer) {
  if (peer.endpoint != nullptr) CloseEndpoint(peer, /*by_force=*/true);
  const bool closed = !UCS_PTR_IS_PTR(peer.close_request) ||
                      ucp_request_check_status(peer.close_request) != UCS_INPROGRESS;
  const bool late = SystemClock().NowNs() - peer.closing_since_ns > kLossNs;
  if ((peer.num_pending > 0 || !closed) && !late) return false;
  if (UCS_PTR_IS_PTR(peer.close_request)) ucp_request_free(peer.close_request);
  peer.close_request = nullptr;
  for (Frame& frame : frames_) {
    if (frame.in_flight && frame.peer == &peer && frame.done) {
      finished_.push_back(std::exchange(frame.done, nullptr));
    }
  }
  if (peer.process_fd >= 0) wakeup_.Unwatch(std::exchange(peer.process_fd, -1));
  peer.sending.ForEach([](uint16_t, SendChannel& channel) { channel.slots = {}; });
  RunFinished();
  peer.state = PeerState::kDown;
  if (handlers_.on_peer_down) {
    handlers_.on_peer_down(
        peer.rank, MakeError(peer.code_lost, "rank {} was lost: {}", peer.rank, peer.why_lost));
  }
  return true;
}

void UcxLink::ProgressUntil(int64_t end_ns, const std::function<bool()>& enough) {
  while (!enough() && SystemClock().NowNs() < end_ns) ucp_worker_progress(worker_.get());
}

void UcxLink::Close(int deadline_ms) {
  if (closed_) return;
  const int64_t start_ns = SystemClock().NowNs();
  const int64_t end_ns = start_ns + deadline_ms * kMsNs;
  if (deadline_ms > 0) {
    for (auto& peer : peers_) {
      if (peer != nullptr) SendLink(*peer, {.kind = LinkFrameKind::kGoodbye});
    }
  }
  closed_ = true;  // from here on nothing is sent and no loss is told
  handlers_ = {};
  const auto drained = [this] {
    return std::ranges::all_of(peers_,
                               [](const auto& peer) { return !peer || peer->num_pending == 0; });
  };
  ProgressUntil(end_ns, drained);
  for (auto& peer : peers_) {
    if (peer == nullptr) continue;
    if (peer->endpoint != nullptr) {
      // What shared memory took is with the peer already; elsewhere a close flushes.
      CloseEndpoint(*peer,
                    deadline_ms == 0 || peer->state != PeerState::kUp || peer->shares_memory);
    }
    if (peer->process_fd >= 0) wakeup_.Unwatch(std::exchange(peer->process_fd, -1));
    peer->state = PeerState::kDown;
  }
  const auto all_closed = [this] {
    return std::ranges::all_of(peers_, [](const auto& peer) {
      return !peer || !UCS_PTR_IS_PTR(peer->close_request) ||
             ucp_request_check_status(peer->close_request) != UCS_INPROGRESS;
    });
  };
  ProgressUntil(std::max(end_ns, start_ns + 20 * kMsNs), all_closed);
  for (auto& peer : peers_) {
    if (peer && UCS_PTR_IS_PTR(peer->close_request)) ucp_request_free(peer->close_request);
    if (peer) peer->close_request = nullptr;
  }
  worker_.Destroy();
  for (Frame& frame : frames_) {
    if (frame.done) finished_.push_back(std::exchange(frame.done, nullptr));
  }
  RunFinished();
}

}  // namespace troupe
