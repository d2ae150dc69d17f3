#include "runtime/transport/ucx/ucx_transport.h"

#include <fmt/format.h>

#include <cstring>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/transport/ucx/ucx_worker.h"

namespace troupe {
namespace {

constexpr unsigned kMessageId = 1;
constexpr unsigned kCreditId = 2;
constexpr unsigned kHeartbeatId = 3;
constexpr size_t kPayloadBytesMax = size_t{16} << 20;
constexpr int kEventsPerProgress = 64;
constexpr int kPassesPerClockRead = 16;
constexpr int64_t kCloseNs = 1'000'000'000;  // for a lost peer's requests to come back

// Header of credits and heartbeats.
struct Notice {
  int32_t source_rank = 0;
  uint16_t channel = 0;
  uint16_t reserved = 0;
};

class Transporter final : public UcxTransport {
 public:
  Transporter(const UcxTransportOptions& options, MemoryLedger& ledger,
              std::unique_ptr<UcxWorker> worker)
      : options_(options), ledger_(ledger), worker_(std::move(worker)) {}
  ~Transporter() override { Close(100); }

  Status Listen() {
    RETURN_IF_ERROR(SetHandler(kMessageId, &Transporter::OnMessage));
    RETURN_IF_ERROR(SetHandler(kCreditId, &Transporter::OnCredit));
    return SetHandler(kHeartbeatId, &Transporter::OnHeartbeat);
  }

  void SetHandlers(Handlers handlers) override { handlers_ = std::move(handlers); }
  std::string LocalAddress() const override { return SealAddress(worker_->address()); }

  Status Connect(Rank to, std::string_view sealed) override {
    const std::string_view address = UnsealAddress(sealed);
    if (address.empty()) {
      return MakeError(ErrorCode::kUnavailable,
                       "rank {}: the {} bytes given for rank {} are no address", options_.self,
                       sealed.size(), to);
    }
    Peer& peer = peers_[to];
    peer.rank = to;
    peer.owner = this;
    peer.last_heard_ns = peer.last_beat_ns = SystemClock().NowNs();
    ucp_ep_params_t params{};
    params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                        UCP_EP_PARAM_FIELD_ERR_HANDLER;
    params.address = reinterpret_cast<const ucp_address_t*>(address.data());
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    params.err_handler.cb = [](void* arg, ucp_ep_h, ucs_status_t status) {
      auto* lost = static_cast<Peer*>(arg);
      lost->owner->BeginLoss(*lost, UcxSentence("its connection broke", status));
    };
    params.err_handler.arg = &peer;
    const ucs_status_t status = ucp_ep_create(worker_->handle(), &params, &peer.endpoint);
    if (status != UCS_OK) {
      return MakeError(ErrorCode::kUnavailable, "rank {} cannot reach rank {}: {}", options_.self,
                       to, UcxSentence("connecting", status));
    }
    return {};
  }

  Status PostSlots(Rank from, uint16_t channel, int num_slots, int64_t slot_bytes) override {
    if (channel == 0 || num_slots < 1 || slot_bytes < 0) {
      return MakeError(ErrorCode::kInvalidSpec, "rank {}: {} slots of {} bytes on channel {}",
                       options_.self, num_slots, slot_bytes, channel);
    }
    SlotPool& pool = slots_[{from, channel}];
    pool.slot_bytes = slot_bytes;
    for (int i = 0; i < num_slots; ++i) {
      pool.buffers.emplace_back(ledger_, MemoryTag::kComm, slot_bytes);
      pool.free.push_back(static_cast<int>(pool.buffers.size()) - 1);
    }
    return {};
  }
  void SetCredits(Rank to, uint16_t channel, int num_slots) override {
    credits_[{to, channel}] = num_slots;
  }
  int Credits(Rank to, uint16_t channel) const override {
    const auto credit = credits_.find({to, channel});
    return credit == credits_.end() ? 0 : credit->second;
  }

  Status Send(Rank to, Envelope envelope, std::span<const std::byte> payload) override {
    return Post(to, envelope, payload, {}, nullptr);
  }
  Status SendBulk(Rank to, Envelope envelope, std::span<const std::byte> payload,
                  std::span<const std::byte> bulk, std::function<void()> done) override {
    if (Credits(to, envelope.channel) <= 0) {  // T1
      return MakeError(ErrorCode::kResourceExhausted, "rank {}: no credit to rank {} on channel {}",
                       options_.self, to, envelope.channel);
    }
    RETURN_IF_ERROR(Post(to, envelope, payload, bulk, std::move(done)));
    --credits_[{to, envelope.channel}];
    return {};
  }

  int Progress() override {
    if (closed_) return 0;
    int events = 0;
    while (events < kEventsPerProgress && ucp_worker_progress(worker_->handle()) != 0) ++events;
    while (!fetches_.empty()) {
      auto fetch = std::exchange(fetches_, {});
      for (auto& [arrival, descriptor] : fetch) StartFetch(arrival, descriptor);
      ++events;
    }
    while (!finished_.empty()) {
      auto done = std::move(finished_.front());
      finished_.pop_front();
      done();
      ++events;
    }
    if (++passes_ % kPassesPerClockRead == 0 || events == 0) CheckPeers();
    return events;
  }
  int EventFd() const override { return worker_->event_fd(); }
  bool Arm() override {
    return !closed_ && finished_.empty() && fetches_.empty() && worker_->Arm();
  }

  Lane LaneTo(Rank to) const override {
    const auto peer = peers_.find(to);
    return peer == peers_.end() || peer->second.endpoint == nullptr ? Lane::kTcp
                                                                    : LaneOf(peer->second.endpoint);
  }
  int64_t BytesSentTo(Rank to) const override {
    const auto peer = peers_.find(to);
    return peer == peers_.end() ? 0 : peer->second.bytes_sent;
  }
  int64_t dropped() const override { return dropped_; }

  void Close(int deadline_ms) override {
    if (std::exchange(closed_, true)) return;
    std::vector<ucs_status_ptr_t> closing;
    for (auto& [rank, peer] : peers_) {
      if (peer.endpoint == nullptr) continue;
      const bool gentle = !peer.losing && deadline_ms > 0;
      closing.push_back(CloseEndpoint(std::exchange(peer.endpoint, nullptr),
                                      gentle ? 0U : UCP_EP_CLOSE_FLAG_FORCE));
    }
    const int64_t end_ns = SystemClock().NowNs() + int64_t{deadline_ms} * 1'000'000;
    for (ucs_status_ptr_t request : closing) {
      if (!UCS_PTR_IS_PTR(request)) continue;
      while (ucp_request_check_status(request) == UCS_INPROGRESS &&
             SystemClock().NowNs() < end_ns) {
        ucp_worker_progress(worker_->handle());
      }
      ucp_request_free(request);
    }
    worker_.reset();  // cancels what is still under way
    for (auto& done : std::exchange(finished_, {})) done();
    for (auto& [op, unused] : std::exchange(under_way_, {})) {
      if (op->done) op->done();
      delete op;
    }
  }

 private:
  struct Peer {
    Rank rank{};
    Transporter* owner = nullptr;
    ucp_ep_h endpoint = nullptr;
    std::map<uint16_t, uint64_t> sent_sequence{};
    int64_t bytes_sent = 0;
    int64_t last_heard_ns = 0;
    int64_t last_beat_ns = 0;
    int64_t num_under_way = 0;
    bool losing = false;  // its endpoint is being closed
    bool lost = false;    // on_peer_down was called
    std::string why{};
    int64_t losing_since_ns = 0;
    ucs_status_ptr_t close_request = nullptr;
  };
  struct SendOp {
    Transporter* owner = nullptr;
    Peer* peer = nullptr;
    std::vector<std::byte> header{};  // outlives the request: UCX 1.13 does not copy it
    std::vector<std::byte> payload{};
    std::function<void()> done{};
  };
  struct SlotPool {
    int64_t slot_bytes = 0;
    std::vector<Buffer> buffers{};
    std::vector<int> free{};
  };
  // A message that has begun to arrive.
  struct Arrival {
    Envelope envelope{};
    std::vector<std::byte> payload{};
    std::span<std::byte> slot{};
    int slot_index = -1;
    bool complete = false;
  };
  using Stream = std::pair<Rank, uint16_t>;
  struct Incoming {
    uint64_t next_sequence = 1;
    std::map<uint64_t, Arrival> waiting{};  // by sequence
  };
  struct ArrivalKey {
    Stream stream{};
    uint64_t sequence = 0;
  };
  struct FetchOp {
    Transporter* owner = nullptr;
    ArrivalKey key{};
  };

  // ---- sending ----
  Status Post(Rank to, Envelope envelope, std::span<const std::byte> payload,
              std::span<const std::byte> bulk, std::function<void()> done) {
    const auto found = peers_.find(to);
    if (found == peers_.end()) {
      return MakeError(ErrorCode::kUnavailable, "rank {} is not connected to rank {}",
                       options_.self, to);
    }
    Peer& peer = found->second;
    if (peer.losing || peer.lost) return MakeError(ErrorCode::kPeerDown, "rank {} was lost", to);
    const bool with_bulk = done != nullptr;
    envelope.source_rank = options_.self.value;
    envelope.destination_rank = to.value;
    envelope.sequence = ++peer.sent_sequence[envelope.channel];
    envelope.payload_bytes = static_cast<uint32_t>(payload.size());
    envelope.bulk_bytes = bulk.size();
    envelope.num_bulk = with_bulk ? 1 : 0;
    SendOp* op = NewOp(peer);
    op->header.resize(sizeof(Envelope) + (with_bulk ? payload.size() : 0));
    std::memcpy(op->header.data(), &envelope, sizeof(Envelope));
    if (with_bulk) {
      std::memcpy(op->header.data() + sizeof(Envelope), payload.data(), payload.size());
    } else {
      op->payload.assign(payload.begin(), payload.end());
    }
    op->done = std::move(done);
    peer.bytes_sent += static_cast<int64_t>(payload.size() + bulk.size());
    Launch(op, kMessageId, with_bulk ? bulk : std::span<const std::byte>(op->payload));
    return {};
  }

  void Notify(Peer& peer, unsigned id, uint16_t channel) {
    if (peer.endpoint == nullptr || peer.losing) return;
    const Notice notice{.source_rank = options_.self.value, .channel = channel};
    SendOp* op = NewOp(peer);
    op->header.resize(sizeof(notice));
    std::memcpy(op->header.data(), &notice, sizeof(notice));
    Launch(op, id, {});
  }

  SendOp* NewOp(Peer& peer) {
    SendOp* op = nullptr;
    if (spare_.empty()) {
      op = new SendOp();
    } else {
      op = spare_.back().release();
      spare_.pop_back();
    }
    op->owner = this;
    op->peer = &peer;
    op->payload.clear();
    op->done = nullptr;
    return op;
  }

  void Launch(SendOp* op, unsigned id, std::span<const std::byte> data) {
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    param.user_data = op;
    param.cb.send = [](void* request, ucs_status_t, void* user_data) {
      auto* sent = static_cast<SendOp*>(user_data);
      ucp_request_free(request);
      sent->owner->Sent(sent, /*was_under_way=*/true);
    };
    const ucs_status_ptr_t request =
        ucp_am_send_nbx(op->peer->endpoint, id, op->header.data(), op->header.size(), data.data(),
                        data.size(), &param);
    if (UCS_PTR_IS_PTR(request)) {
      under_way_[op] = true;
      ++op->peer->num_under_way;
      return;
    }
    // Done at once, or failed: then the error handler tells of the peer, and this send is over too.
    if (UCS_PTR_IS_ERR(request)) {
      BeginLoss(*op->peer, UcxSentence("sending", UCS_PTR_STATUS(request)));
    }
    Sent(op, /*was_under_way=*/false);
  }

  void Sent(SendOp* op, bool was_under_way) {
    if (was_under_way) {
      under_way_.erase(op);
      --op->peer->num_under_way;
    }
    if (op->done) finished_.push_back(std::move(op->done));  // T3: not before Progress
    spare_.emplace_back(op);
  }

  // ---- receiving ----
  Status SetHandler(unsigned id, ucp_am_recv_callback_t callback) {
    ucp_am_handler_param_t param{};
    param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
    param.id = id;
    param.flags = UCP_AM_FLAG_WHOLE_MSG;
    param.cb = callback;
    param.arg = this;
    const ucs_status_t status = ucp_worker_set_am_recv_handler(worker_->handle(), &param);
    if (status == UCS_OK) return {};
    return MakeError(ErrorCode::kUnavailable, "{}", UcxSentence("listening", status));
  }

  // The peer that a frame says it comes from, if it is connected and not lost.
  Peer* Heard(int32_t source_rank) {
    const auto peer = peers_.find(Rank(source_rank));
    if (peer == peers_.end() || peer->second.losing || peer->second.lost) return nullptr;
    peer->second.last_heard_ns = coarse_now_ns_;
    return &peer->second;
  }

  static ucs_status_t OnMessage(void* arg, const void* header, size_t header_bytes, void* data,
                                size_t num_bytes, const ucp_am_recv_param_t* param) {
    auto* self = static_cast<Transporter*>(arg);
    const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
    return self->Receive(header, header_bytes, data, num_bytes, rendezvous);
  }

  ucs_status_t Drop() {
    ++dropped_;
    return UCS_OK;
  }

  ucs_status_t Receive(const void* header, size_t header_bytes, void* data, size_t num_bytes,
                       bool rendezvous) {
    if (header_bytes < sizeof(Envelope)) return Drop();  // U1
    Envelope envelope;
    std::memcpy(&envelope, header, sizeof(envelope));
    const bool with_bulk = envelope.num_bulk == 1;
    const size_t beside = header_bytes - sizeof(Envelope);
    if (envelope.magic != Envelope::kMagic || envelope.num_bulk > 1 ||
        envelope.payload_bytes > kPayloadBytesMax ||
        (with_bulk ? beside != envelope.payload_bytes || num_bytes != envelope.bulk_bytes
                   : beside != 0 || num_bytes != envelope.payload_bytes)) {
      return Drop();
    }
    Peer* peer = Heard(envelope.source_rank);
    if (peer == nullptr) return Drop();
    const Stream stream{peer->rank, envelope.channel};
    Incoming& incoming = incoming_[stream];
    if (envelope.sequence < incoming.next_sequence ||
        incoming.waiting.contains(envelope.sequence)) {
      return Drop();
    }
    if (!with_bulk && !rendezvous && envelope.sequence == incoming.next_sequence) {
      ++incoming.next_sequence;
      Deliver({envelope, {static_cast<const std::byte*>(data), num_bytes}, {}});
      DeliverWaiting(stream, incoming);
      return UCS_OK;
    }
    Arrival arrival{.envelope = envelope};
    if (with_bulk) {
      const auto* payload = static_cast<const std::byte*>(header) + sizeof(Envelope);
      arrival.payload.assign(payload, payload + beside);
      if (!TakeSlot(stream, num_bytes, arrival)) return Drop();
    } else {
      arrival.payload.resize(num_bytes);
    }
    const std::span<std::byte> target = with_bulk ? arrival.slot : std::span(arrival.payload);
    if (!rendezvous && num_bytes > 0) std::memcpy(target.data(), data, num_bytes);
    arrival.complete = !rendezvous;
    incoming.waiting.emplace(envelope.sequence, std::move(arrival));
    if (rendezvous) {
      fetches_.emplace_back(ArrivalKey{stream, envelope.sequence}, data);
      return UCS_INPROGRESS;  // the descriptor stays ours
    }
    DeliverWaiting(stream, incoming);
    return UCS_OK;
  }

  bool TakeSlot(const Stream& stream, size_t num_bytes, Arrival& arrival) {
    const auto pool = slots_.find(stream);
    if (pool == slots_.end() || pool->second.free.empty() ||
        static_cast<int64_t>(num_bytes) > pool->second.slot_bytes) {
      return false;
    }
    arrival.slot_index = pool->second.free.back();
    pool->second.free.pop_back();
    arrival.slot =
        pool->second.buffers[static_cast<size_t>(arrival.slot_index)].bytes().first(num_bytes);
    return true;
  }

  void StartFetch(const ArrivalKey& key, void* descriptor) {
    const auto incoming = incoming_.find(key.stream);
    const auto found = incoming->second.waiting.find(key.sequence);
    if (found == incoming->second.waiting.end()) {  // the peer was lost meanwhile
      ucp_am_data_release(worker_->handle(), descriptor);
      return;
    }
    Arrival& arrival = found->second;
    const std::span<std::byte> target =
        arrival.slot_index >= 0 ? arrival.slot : std::span(arrival.payload);
    auto* op = new FetchOp{this, key};
    ucp_request_param_t param{};
    param.op_attr_mask =
        UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
    param.user_data = op;
    param.cb.recv_am = [](void* request, ucs_status_t status, size_t, void* user_data) {
      const std::unique_ptr<FetchOp> fetched(static_cast<FetchOp*>(user_data));
      ucp_request_free(request);
      fetched->owner->Fetched(fetched->key, status);
    };
    const ucs_status_ptr_t request =
        ucp_am_recv_data_nbx(worker_->handle(), descriptor, target.data(), target.size(), &param);
    if (UCS_PTR_IS_ERR(request)) {
      delete op;
      Fetched(key, UCS_PTR_STATUS(request));
    }
  }

  void Fetched(const ArrivalKey& key, ucs_status_t status) {
    Incoming& incoming = incoming_[key.stream];
    const auto found = incoming.waiting.find(key.sequence);
    if (found == incoming.waiting.end()) return;
    if (status != UCS_OK) {
      BeginLoss(peers_.at(key.stream.first), UcxSentence("receiving", status));
      return;
    }
    found->second.complete = true;
    DeliverWaiting(key.stream, incoming);
  }

  void DeliverWaiting(const Stream& stream, Incoming& incoming) {  // U2
    while (!incoming.waiting.empty()) {
      const auto first = incoming.waiting.begin();
      if (first->first != incoming.next_sequence || !first->second.complete) return;
      ++incoming.next_sequence;
      auto node = incoming.waiting.extract(first);
      Arrival& arrival = node.mapped();
      Delivery delivery{arrival.envelope, arrival.payload, {}};
      if (arrival.slot_index >= 0) {
        delivery.bulk = Bulk(
            arrival.slot, [this, stream, index = arrival.slot_index] { FreeSlot(stream, index); });
      }
      Deliver(std::move(delivery));
    }
  }

  void Deliver(Delivery delivery) {
    if (handlers_.on_message) handlers_.on_message(std::move(delivery));
  }

  void FreeSlot(const Stream& stream, int index) {
    slots_[stream].free.push_back(index);
    if (closed_) return;
    Notify(peers_.at(stream.first), kCreditId, stream.second);
  }

  static ucs_status_t OnCredit(void* arg, const void* header, size_t header_bytes, void*, size_t,
                               const ucp_am_recv_param_t*) {
    auto* self = static_cast<Transporter*>(arg);
    Notice notice;
    if (header_bytes != sizeof(notice)) return self->Drop();
    std::memcpy(&notice, header, sizeof(notice));
    Peer* peer = self->Heard(notice.source_rank);
    const auto credit = self->credits_.find({Rank(notice.source_rank), notice.channel});
    if (peer == nullptr || credit == self->credits_.end()) return self->Drop();
    ++credit->second;
    // Not from within UCX: the handler may send.
    self->finished_.push_back([self, rank = peer->rank, channel = notice.channel] {
      if (self->handlers_.on_credit) self->handlers_.on_credit(rank, channel);
    });
    return UCS_OK;
  }

  static ucs_status_t OnHeartbeat(void* arg, const void* header, size_t header_bytes, void*, size_t,
                                  const ucp_am_recv_param_t*) {
    auto* self = static_cast<Transporter*>(arg);
    Notice notice;
    if (header_bytes != sizeof(notice)) return self->Drop();
    std::memcpy(&notice, header, sizeof(notice));
    if (self->Heard(notice.source_rank) == nullptr) return self->Drop();
    return UCS_OK;
  }

  // ---- liveness ----
  void CheckPeers() {
    coarse_now_ns_ = SystemClock().NowNs();
    for (auto& [rank, peer] : peers_) {
      if (peer.lost) continue;
      if (peer.losing) {
        FinishLoss(peer);
        continue;
      }
      if (coarse_now_ns_ - peer.last_beat_ns > int64_t{options_.heartbeat_ms} * 1'000'000) {
        peer.last_beat_ns = coarse_now_ns_;
        Notify(peer, kHeartbeatId, 0);
      }
      if (coarse_now_ns_ - peer.last_heard_ns > int64_t{options_.silence_ms} * 1'000'000) {
        BeginLoss(peer, fmt::format("it was silent for {} ms", options_.silence_ms));  // U3
      }
    }
  }

  ucs_status_ptr_t CloseEndpoint(ucp_ep_h endpoint, unsigned flags) {
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = flags;
    return ucp_ep_close_nbx(endpoint, &param);
  }

  void BeginLoss(Peer& peer, std::string why) {
    if (peer.losing || peer.lost || closed_) return;
    peer.losing = true;
    peer.why = std::move(why);
    peer.losing_since_ns = SystemClock().NowNs();
  }

  // Closes the endpoint by force, waits for its requests, then tells (T2).
  void FinishLoss(Peer& peer) {
    if (peer.endpoint != nullptr) {
      peer.close_request =
          CloseEndpoint(std::exchange(peer.endpoint, nullptr), UCP_EP_CLOSE_FLAG_FORCE);
    }
    const bool late = coarse_now_ns_ - peer.losing_since_ns > kCloseNs;
    if (peer.num_under_way > 0 && !late) return;
    if (UCS_PTR_IS_PTR(peer.close_request)) ucp_request_free(peer.close_request);
    peer.close_request = nullptr;
    peer.lost = true;
    for (auto& [stream, incoming] : incoming_) {
      if (stream.first == peer.rank) incoming.waiting.clear();
    }
    while (!finished_.empty()) {
      auto done = std::move(finished_.front());
      finished_.pop_front();
      done();
    }
    if (handlers_.on_peer_down) {
      handlers_.on_peer_down(peer.rank, MakeError(ErrorCode::kPeerDown, "{}", peer.why));
    }
  }

  const UcxTransportOptions options_;
  MemoryLedger& ledger_;
  std::unique_ptr<UcxWorker> worker_;
  Handlers handlers_{};
  std::map<Rank, Peer> peers_{};
  std::map<Stream, SlotPool> slots_{};
  std::map<Stream, int> credits_{};
  std::map<Stream, Incoming> incoming_{};
  std::vector<std::pair<ArrivalKey, void*>> fetches_{};  // UCX's descriptors
  std::deque<std::function<void()>> finished_{};
  std::map<SendOp*, bool> under_way_{};
  std::vector<std::unique_ptr<SendOp>> spare_{};
  int64_t coarse_now_ns_ = SystemClock().NowNs();
  uint64_t passes_ = 0;
  int64_t dropped_ = 0;
  bool closed_ = false;
};

}  // namespace

Result<std::unique_ptr<Transport>> UcxTransport::Create(const UcxTransportOptions& options,
                                                        MemoryLedger& ledger) {
  ASSIGN_OR_RETURN(auto worker, UcxWorker::Create());
  auto transport = std::make_unique<Transporter>(options, ledger, std::move(worker));
  RETURN_IF_ERROR(transport->Listen());
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace troupe
