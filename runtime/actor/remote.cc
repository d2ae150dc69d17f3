#include "runtime/actor/remote.h"

#include <xxhash.h>

#include <numeric>

namespace troupe {

uint64_t WireTypeIdOf(std::string_view name) { return XXH64(name.data(), name.size(), 0); }

std::string_view DropCauseName(DropCause cause) {
  switch (cause) {
    case DropCause::kMalformed:
      return "malformed";
    case DropCause::kWrongEpoch:
      return "wrong epoch";
    case DropCause::kUnknownActor:
      return "unknown actor";
    case DropCause::kStale:
      return "stale";
    case DropCause::kUnknownType:
      return "unknown type";
    case DropCause::kBadPayload:
      return "bad payload";
    case DropCause::kUnexpectedBulk:
      return "unexpected bulk";
    case DropCause::kMailboxFull:
      return "mailbox full";
  }
  return "?";
}

RankRouter::RankRouter(Scheduler& scheduler, Transport& transport, Options options)
    : scheduler_(scheduler), transport_(transport), options_(std::move(options)) {
  transport_.SetHandlers({
      .on_message = [this](Delivery&& delivery) { Deliver(std::move(delivery)); },
      .on_peer_down =
          [this](Rank peer, Error cause) {
            if (options_.on_peer_down) options_.on_peer_down(peer, cause);
          },
      .on_credit =
          [this](Rank peer, uint16_t channel) {
            if (options_.on_credit) options_.on_credit(peer, channel);
          },
  });
  poller_ = scheduler_.AddPoller([this] { return transport_.Progress(); }, transport_.EventFd(),
                                 [this] { return transport_.Arm(); }, Polling::kSpinning);
}

RankRouter::~RankRouter() {
  *alive_ = false;
  scheduler_.RemovePoller(poller_);
  transport_.SetHandlers({.on_message = [](Delivery) {},
                          .on_peer_down = [](Rank, Error) {},
                          .on_credit = [](Rank, uint16_t) {}});
}

Envelope RankRouter::MakeEnvelope(uint32_t index, uint32_t incarnation, uint64_t type_id,
                                  const Postmark& postmark) const {
  Envelope envelope;
  envelope.type_id = type_id;
  envelope.channel = postmark.channel;
  envelope.job = options_.job.value;
  envelope.epoch = options_.epoch.value;
  envelope.source_rank = options_.self.value;
  envelope.destination_actor = index;
  envelope.destination_incarnation = incarnation;
  envelope.step = postmark.step;
  envelope.microbatch = postmark.microbatch;
  envelope.stage = postmark.stage;
  envelope.flow_id = postmark.flow_id;
  return envelope;
}

Status RankRouter::SendEncoded(Rank to, uint32_t index, uint32_t incarnation, uint64_t type_id,
                               std::span<const std::byte> payload, const Postmark& postmark) {
  if (to == options_.self) [[unlikely]] {
    DeliverToSelf(MakeEnvelope(index, incarnation, type_id, postmark), payload, {}, nullptr);
    return {};
  }
  return transport_.Send(to, MakeEnvelope(index, incarnation, type_id, postmark), payload);
}

Status RankRouter::SendBulkEncoded(Rank to, uint32_t index, uint32_t incarnation, uint64_t type_id,
                                   std::span<const std::byte> payload,
                                   std::span<const std::byte> bulk, std::function<void()> done,
                                   const Postmark& postmark) {
  if (to == options_.self) {
    Envelope envelope = MakeEnvelope(index, incarnation, type_id, postmark);
    envelope.num_bulk = 1;
    envelope.bulk_bytes = bulk.size();
    DeliverToSelf(envelope, payload, bulk, std::move(done));
    return {};
  }
  return transport_.SendBulk(to, MakeEnvelope(index, incarnation, type_id, postmark), payload, bulk,
                             std::move(done));
}

// To this very rank: the bulk is handed over where it lies, and `done` comes when the receiver lets
// it go. No credits, since the sender's own buffers bound what is under way.
void RankRouter::DeliverToSelf(const Envelope& envelope, std::span<const std::byte> payload,
                               std::span<const std::byte> bulk, std::function<void()> done) {
  Delivery delivery{.envelope = envelope, .payload = {}, .bulk = {}};
  if (envelope.num_bulk > 0) {
    delivery.bulk = Bulk({const_cast<std::byte*>(bulk.data()), bulk.size()}, std::move(done));
  }
  scheduler_.Post([this, alive = alive_, delivery = std::move(delivery),
                   bytes = std::vector<std::byte>(payload.begin(), payload.end())]() mutable {
    if (!*alive) return;
    delivery.payload = bytes;
    Deliver(std::move(delivery));
  });
}

// One body with all that it calls but what is rare.
[[gnu::flatten]] void RankRouter::Deliver(Delivery&& delivery) {
  DropCause cause = DropCause::kMalformed;
  if (delivery.envelope.num_bulk > 0 && delivery.arrived_ns == 0) {
    delivery.arrived_ns = scheduler_.clock().NowNs();
  }
  Status status = Dispatch(delivery, &cause);
  if (!status.ok()) return Drop(cause, delivery.envelope, std::move(status).error());
  ++delivered_;
}

[[gnu::noinline]] void RankRouter::Drop(DropCause cause, const Envelope& envelope, Error error) {
  ++dropped_[static_cast<size_t>(cause)];
  if (options_.on_drop) {
    options_.on_drop(cause, envelope,
                     Context(fmt::format("message from rank {} to actor {}", envelope.source_rank,
                                         envelope.destination_actor),
                             std::move(error)));
  }
}

Status RankRouter::Dispatch(Delivery& delivery, DropCause* cause) {
  const Envelope& envelope = delivery.envelope;
  *cause = DropCause::kMalformed;
  if (envelope.magic != Envelope::kMagic || envelope.header_version != Envelope::kHeaderVersion) {
    return MakeError(ErrorCode::kCorrupt, "header of version {} is not one this build reads",
                     envelope.header_version);
  }
  *cause = DropCause::kWrongEpoch;
  if (envelope.job != options_.job.value || envelope.epoch != options_.epoch.value) {
    return MakeError(ErrorCode::kStale, "job {} epoch {}, this rank is at job {} epoch {}",
                     envelope.job, envelope.epoch, options_.job, options_.epoch);
  }
  *cause = DropCause::kUnknownActor;
  if (envelope.destination_actor >= entries_.size() || !entries_[envelope.destination_actor]) {
    return MakeError(ErrorCode::kNotFound, "no such actor");
  }
  const Entry& entry = *entries_[envelope.destination_actor];
  *cause = DropCause::kStale;
  if (envelope.destination_incarnation != entry.incarnation) {
    return MakeError(ErrorCode::kStale, "{}: incarnation {}, it is at {}", entry.name,
                     envelope.destination_incarnation, entry.incarnation);
  }
  for (const TypeEntry& type : entry.types) {
    if (type.type_id != envelope.type_id) continue;
    if (!type.with_bulk && !delivery.bulk.empty()) {
      *cause = DropCause::kUnexpectedBulk;
      return MakeError(ErrorCode::kCorrupt, "{}: {} bytes of bulk beside a message without bulk",
                       entry.name, delivery.bulk.bytes().size());
    }
    Status status = type.deliver(delivery);
    if (!status.ok()) {
      *cause = status.error().code == ErrorCode::kResourceExhausted ? DropCause::kMailboxFull
               : status.error().code == ErrorCode::kStale           ? DropCause::kStale
                                                                    : DropCause::kBadPayload;
    }
    return status;
  }
  *cause = DropCause::kUnknownType;
  return MakeError(ErrorCode::kNotFound, "{}: it takes no message of type {:016x}", entry.name,
                   envelope.type_id);
}

int64_t RankRouter::dropped_total() const {
  return std::accumulate(dropped_.begin(), dropped_.end(), int64_t{0});
}

}  // namespace troupe
