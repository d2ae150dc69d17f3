#include "runtime/transport/inproc/inproc_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace troupe {

class InprocTransport : public Transport {
 public:
  InprocTransport(InprocNetwork& network, Rank rank)
      : network_(network), rank_(rank), inbox_(network.InboxOf(rank)) {}
  ~InprocTransport() override { InprocTransport::Close(0); }

  void SetHandlers(Handlers handlers) override { handlers_ = std::move(handlers); }

  std::string LocalAddress() const override { return fmt::format("inproc:{}", rank_); }

  Status Connect(Rank peer, std::string_view address) override {
    if (address != fmt::format("inproc:{}", peer)) {
      return MakeError(ErrorCode::kUnavailable, "rank {}: '{}' is not the address of rank {}",
                       rank_, address, peer);
    }
    peers_[peer].inbox = network_.InboxOf(peer);
    return {};
  }

  Status PostSlots(Rank from, uint16_t channel, int num_slots, int64_t slot_bytes) override {
    if (channel == 0 || num_slots < 1 || slot_bytes < 0) {
      return MakeError(ErrorCode::kInvalidSpec, "rank {}: {} slots of {} bytes on channel {}",
                       rank_, num_slots, slot_bytes, channel);
    }
    slot_bytes_[{from, channel}] = slot_bytes;
    return {};
  }

  void SetCredits(Rank to, uint16_t channel, int num_slots) override {
    credits_[{to, channel}] = num_slots;
  }
  int Credits(Rank to, uint16_t channel) const override {
    const auto credit = credits_.find({to, channel});
    return credit == credits_.end() ? 0 : credit->second;
  }

  Status Send(Rank to, const Envelope& envelope, std::span<const std::byte> payload) override {
    return Post(to, envelope, payload, {}, nullptr);
  }

  Status SendBulk(Rank to, const Envelope& envelope, std::span<const std::byte> payload,
                  std::span<const std::byte> bulk, std::function<void()> done) override {
    if (Credits(to, envelope.channel) <= 0) {  // T1
      return MakeError(ErrorCode::kResourceExhausted, "rank {}: no credit to rank {} on channel {}",
                       rank_, to, envelope.channel);
    }
    return Post(to, envelope, payload, bulk, std::move(done));
  }

  int Progress() override {
    int events = 0;
    while (events < kEventsPerProgress && (TakeLost() || TakeReturned() || TakeParcel())) ++events;
    return events;
  }
  int EventFd() const override { return -1; }
  bool Arm() override {
    const std::lock_guard lock(inbox_->mutex);
    return inbox_->parcels.empty() && inbox_->returned.empty() && inbox_->lost.empty();
  }

  Lane LaneTo(Rank) const override { return Lane::kInproc; }
  int64_t BytesSentTo(Rank peer) const override {
    const auto found = peers_.find(peer);
    return found == peers_.end() ? 0 : found->second.bytes_sent;
  }

  void Close(int) override {
    for (auto& [ticket, pending] : std::exchange(pending_, {})) {
      if (pending.done) pending.done();
    }
    peers_.clear();
  }

 private:
  static constexpr int kEventsPerProgress = 64;

  struct Peer {
    std::shared_ptr<InprocNetwork::Inbox> inbox{};
    std::map<uint16_t, uint64_t> sequence{};
    int64_t bytes_sent = 0;
    bool lost = false;
  };
  struct Pending {
    Rank to{};
    uint16_t channel = 0;
    std::function<void()> done{};
  };

  Status Post(Rank to, Envelope envelope, std::span<const std::byte> payload,
              std::span<const std::byte> bulk, std::function<void()> done) {
    const auto found = peers_.find(to);
    if (found == peers_.end()) {
      return MakeError(ErrorCode::kUnavailable, "rank {} is not connected to rank {}", rank_, to);
    }
    Peer& peer = found->second;
    if (peer.lost) return MakeError(ErrorCode::kPeerDown, "rank {} was lost", to);
    envelope.source_rank = rank_.value;
    envelope.sequence = ++peer.sequence[envelope.channel];
    envelope.bulk_bytes = bulk.size();
    envelope.num_bulk = done ? 1 : 0;
    InprocNetwork::Parcel parcel{.envelope = envelope,
                                 .payload = {payload.begin(), payload.end()},
                                 // The receiver reads it; nobody writes through this span.
                                 .bulk = {const_cast<std::byte*>(bulk.data()), bulk.size()}};
    if (done) {
      parcel.ticket = ++last_ticket_;
      pending_[parcel.ticket] = {to, envelope.channel, std::move(done)};
      --credits_[{to, envelope.channel}];
    }
    peer.bytes_sent += static_cast<int64_t>(payload.size() + bulk.size());
    const std::lock_guard lock(peer.inbox->mutex);
    peer.inbox->parcels.push_back(std::move(parcel));
    return {};
  }

  template <typename T>
  bool Pop(std::deque<T> InprocNetwork::Inbox::*queue, T* item) {
    const std::lock_guard lock(inbox_->mutex);
    auto& items = (*inbox_).*queue;
    if (items.empty()) return false;
    *item = std::move(items.front());
    items.pop_front();
    return true;
  }

  bool TakeParcel() {
    InprocNetwork::Parcel parcel;
    if (!Pop(&InprocNetwork::Inbox::parcels, &parcel)) return false;
    const Rank from(parcel.envelope.source_rank);
    if (const auto peer = peers_.find(from); peer != peers_.end() && peer->second.lost) {
      return true;  // T2
    }
    Delivery delivery{.envelope = parcel.envelope, .payload = parcel.payload, .bulk = {}};
    if (parcel.ticket != 0) {
      const auto slot = slot_bytes_.find({from, parcel.envelope.channel});
      CHECK(slot != slot_bytes_.end() && static_cast<int64_t>(parcel.bulk.size()) <= slot->second,
            "rank {}: {} bytes from rank {} on channel {} have no slot", rank_, parcel.bulk.size(),
            from, parcel.envelope.channel);
      auto sender = network_.InboxOf(from);
      delivery.bulk = Bulk(parcel.bulk, [sender, me = rank_, ticket = parcel.ticket] {
        const std::lock_guard lock(sender->mutex);
        sender->returned.push_back({me, ticket});
      });
    }
    if (handlers_.on_message) handlers_.on_message(std::move(delivery));
    return true;
  }

  bool TakeReturned() {
    InprocNetwork::Returned returned;
    if (!Pop(&InprocNetwork::Inbox::returned, &returned)) return false;
    Finish(returned.ticket);
    return true;
  }

  void Finish(uint64_t ticket) {
    auto node = pending_.extract(ticket);
    if (node.empty()) return;  // finished when the peer was lost
    Pending& pending = node.mapped();
    ++credits_[{pending.to, pending.channel}];
    pending.done();
    if (handlers_.on_credit) handlers_.on_credit(pending.to, pending.channel);
  }

  bool TakeLost() {
    InprocNetwork::Lost lost;
    if (!Pop(&InprocNetwork::Inbox::lost, &lost)) return false;
    const auto peer = peers_.find(lost.peer);
    if (peer == peers_.end() || peer->second.lost) return true;
    peer->second.lost = true;
    std::vector<uint64_t> tickets;
    for (const auto& [ticket, pending] : pending_) {
      if (pending.to == lost.peer) tickets.push_back(ticket);
    }
    for (const uint64_t ticket : tickets) Finish(ticket);
    if (handlers_.on_peer_down) {
      handlers_.on_peer_down(lost.peer,
                             MakeError(ErrorCode::kPeerDown, "rank {} was lost", lost.peer));
    }
    return true;
  }

  InprocNetwork& network_;
  const Rank rank_;
  const std::shared_ptr<InprocNetwork::Inbox> inbox_;
  Handlers handlers_{};
  std::map<Rank, Peer> peers_{};
  std::map<std::pair<Rank, uint16_t>, int64_t> slot_bytes_{};
  std::map<std::pair<Rank, uint16_t>, int> credits_{};
  std::map<uint64_t, Pending> pending_{};
  uint64_t last_ticket_ = 0;
};

std::shared_ptr<InprocNetwork::Inbox> InprocNetwork::InboxOf(Rank rank) {
  const std::lock_guard lock(mutex_);
  auto& inbox = inboxes_[rank];
  if (!inbox) inbox = std::make_shared<Inbox>();
  return inbox;
}

std::unique_ptr<Transport> InprocNetwork::NewTransport(Rank rank) {
  return std::make_unique<InprocTransport>(*this, rank);
}

void InprocNetwork::Kill(Rank rank) {
  const std::lock_guard lock(mutex_);
  for (auto& [other, inbox] : inboxes_) {
    if (other == rank) continue;
    const std::lock_guard inbox_lock(inbox->mutex);
    inbox->lost.push_back({rank});
  }
}

}  // namespace troupe
