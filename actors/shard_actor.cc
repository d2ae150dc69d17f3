#include "actors/shard_actor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "runtime/base/bytes_in_words.h"
#include "runtime/trace/span.h"

namespace troupe {
namespace {

// "gather model.layers.3 for Forward, 1.4 MiB": the whole row's bytes.
uint32_t SpanName(const ShardActorOptions& options, std::string_view pass) {
  int64_t num_bytes = 0;
  for (const ShardOwner& owner : options.owners) num_bytes += owner.num_bytes;
  return InternTraceName(fmt::format("gather {} for {}, {}", options.name, pass,
                                     BytesInWords(static_cast<double>(num_bytes))));
}

}  // namespace

ShardActor::ShardActor(ShardActorOptions options, ShardChannels& channels)
    : options_(std::move(options)),
      channels_(channels),
      waiter_(fmt::format("rank {}", options_.rank)),
      activity_(fmt::format("weights of {}", options_.name)),
      name_(fmt::format("{}, {}", waiter_, activity_)),
      span_names_({SpanName(options_, "Forward"), SpanName(options_, "backward")}) {
  for (const ShardOwner& owner : options_.owners) {
    if (owner.rank == options_.rank) own_ = peers_.size();
    peers_.push_back({.owner = owner,
                      .name = fmt::format("rank {}", owner.rank),
                      .first_byte = row_bytes_,
                      .waiting = {}});
    row_bytes_ += owner.num_bytes;
  }
  CHECK(!peers_.empty() && own().owner.rank == options_.rank, "{}: it has no part", name_);
}

ShardActor::Peer* ShardActor::Find(int32_t rank) {
  const auto found = std::ranges::find_if(
      peers_, [rank](const Peer& peer) { return peer.owner.rank.value == rank; });
  return found == peers_.end() || &*found == &own() ? nullptr : &*found;
}

// ---- own run -----------------------------------------------------------------------------------

Status ShardActor::On(const PublishRow& publish) {
  CHECK(!gathering_, "{}: version {} comes while version {} is gathered", name_, publish.version,
        version_);
  CHECK(publish.version > version_ && std::ssize(publish.own) == own().owner.num_bytes,
        "{}: {} bytes in version {} after {} bytes in version {}", name_, publish.own.size(),
        publish.version, own().owner.num_bytes, version_);
  for (const Peer& peer : peers_) {  // I3
    const bool late =
        &peer != &own() && (channels_.Sends(peer.owner.actor) ||
                            (peer.waiting && peer.waiting->version < publish.version));
    if (!late) continue;
    return MakeError(ErrorCode::kFailed,
                     "{}: {} still gathers version {} while version {} takes its place", name_,
                     peer.name, peer.waiting ? peer.waiting->version : version_, publish.version);
  }
  published_ = publish.own;
  version_ = publish.version;
  for (Peer& peer : peers_) {
    if (!peer.waiting || peer.waiting->version != version_) continue;
    Answer(peer, *std::exchange(peer.waiting, std::nullopt));
  }
  return {};
}

Status ShardActor::On(WithBulk<ShardWanted> wanted) {
  Peer* from = Find(wanted.envelope.source_rank);
  const Status fits = Check(from, wanted.message);
  if (!fits.ok()) {
    return Context(fmt::format("{}: a request of rank {}", name_, wanted.envelope.source_rank),
                   fits.error());
  }
  if (wanted.message.version > version_) {
    from->waiting = wanted.message;  // I2
  } else {
    Answer(*from, wanted.message);
  }
  return {};
}

Status ShardActor::Check(const Peer* from, const ShardWanted& wanted) const {
  if (from == nullptr) return MakeError(ErrorCode::kCorrupt, "it is no other owner");
  if (wanted.stage != options_.stage.value || wanted.row != options_.row) {
    return MakeError(ErrorCode::kCorrupt, "row {} of stage {} is another than row {} of stage {}",
                     wanted.row, wanted.stage, options_.row, options_.stage);
  }
  if (peers_[own_].owner.num_bytes == 0) {
    return MakeError(ErrorCode::kCorrupt, "there is nothing to ask for here");
  }
  if (wanted.version < std::max<int64_t>(version_, 0)) {
    return MakeError(ErrorCode::kCorrupt, "version {} has gone, version {} is here", wanted.version,
                     version_);
  }
  if (from->waiting || channels_.Sends(from->owner.actor)) {
    return MakeError(ErrorCode::kCorrupt, "it comes before the one before it was answered");
  }
  return {};
}

void ShardActor::Answer(const Peer& to, const ShardWanted& wanted) {
  channels_.Send(to.owner.actor,
                 {.version = version_,
                  .stage = options_.stage.value,
                  .row = options_.row,
                  .run_bytes = own().owner.num_bytes},
                 published_, wanted.training != 0);
}

// ---- the whole ---------------------------------------------------------------------------------

Status ShardActor::On(const GatherRow& gather) {
  CHECK(!gathering_, "{}: two gathers at once", name_);
  CHECK(version_ >= 0, "{}: gathered before it was published", name_);
  CHECK(std::ssize(gather.whole) == row_bytes_, "{}: {} bytes for a row of {}", name_,
        gather.whole.size(), row_bytes_);
  for (Peer& peer : peers_) peer.taken = 0;
  gathering_.emplace(Gathering{.whole = gather.whole, .arrival = gather.arrival});
  if (options_.trace.Covers(gather.arrival->pass.step)) {
    gathering_->start_ns = context().clock().NowNs();
  }
  if (broken_) {
    EndGather(*broken_);
    return {};
  }
  const ShardWanted wanted{
      .version = version_,
      .stage = options_.stage.value,
      .row = options_.row,
      .training = options_.traffic == nullptr || options_.traffic->in_training_step ? 1U : 0U};
  for (const Peer& peer : peers_) {
    if (&peer == &own() || !peer.owes()) continue;
    const Status sent = peer.owner.actor.Send(wanted);
    if (!sent.ok()) {
      Break(Context(name_, sent.error()));
      return {};
    }
  }
  Continue();
  return {};
}

Status ShardActor::On(WithBulk<ShardBlock> block) {
  if (!gathering_ && broken_) return {};  // I4
  Peer* from = Find(block.envelope.source_rank);
  const Status taken = Take(from, block.message, block.bulk.bytes());
  if (taken.ok()) {
    block.bulk.Release();
    Continue();
    return {};
  }
  Error error = Context(fmt::format("{}: a block of rank {}", name_, block.envelope.source_rank),
                        taken.error());
  Break(error);
  return error;
}

Status ShardActor::Take(Peer* from, const ShardBlock& block, std::span<const std::byte> bytes) {
  if (from == nullptr) return MakeError(ErrorCode::kCorrupt, "it is no other owner");
  if (!gathering_ || !from->owes()) return MakeError(ErrorCode::kCorrupt, "it was not asked for");
  const auto count = std::ssize(bytes);
  const bool is_next = block.stage == options_.stage.value && block.row == options_.row &&
                       block.version == version_ && block.run_bytes == from->owner.num_bytes &&
                       block.first_byte == from->taken && count > 0 &&
                       count <= from->owner.num_bytes - from->taken;
  if (!is_next) {
    return MakeError(ErrorCode::kCorrupt,
                     "{} bytes at byte {} of {}, of version {} of row {} of stage {}, came where "
                     "byte {} of {}, of version {} of row {} of stage {}, was to come",
                     count, block.first_byte, block.run_bytes, block.version, block.row,
                     block.stage, from->taken, from->owner.num_bytes, version_, options_.row,
                     options_.stage);
  }
  std::memcpy(gathering_->whole.data() + from->first_byte + from->taken, bytes.data(),
              bytes.size());
  from->taken += count;
  CopyOwn(count);
  return {};
}

void ShardActor::CopyOwn(int64_t most_bytes) {
  const int64_t count = std::min(most_bytes, own().owner.num_bytes - own().taken);
  if (count == 0) return;
  std::memcpy(gathering_->whole.data() + own().first_byte + own().taken,
              published_.data() + own().taken, static_cast<size_t>(count));
  own().taken += count;
}

ShardActor::Peer* ShardActor::FirstOwing() {
  const auto owing = std::ranges::find_if(
      peers_, [this](const Peer& peer) { return &peer != &own() && peer.owes(); });
  return owing == peers_.end() ? nullptr : &*owing;
}

void ShardActor::Continue() {
  Peer* owing = FirstOwing();
  if (owing == nullptr) {
    CopyOwn(own().owner.num_bytes);
    return EndGather({});
  }
  if (!gathering_->record.waiting()) return BeginWait(*owing);
  if (owing == gathering_->first_owing) return;
  gathering_->first_owing = owing;
  gathering_->subject.from = owing->name;
  gathering_->record.OwedBy(owing->name);
}

void ShardActor::BeginWait(Peer& owing) {
  Gathering& gathering = *gathering_;
  gathering.first_owing = &owing;
  gathering.subject = {
      .waiter = waiter_,
      .activity = activity_,
      .owed = "shards",
      .from = owing.name,
      .deadline_ms = options_.tell_ms,
      .detail = [](const void* about) { return static_cast<const ShardActor*>(about)->Missing(); },
      .owing = [](const void* about) { return static_cast<const ShardActor*>(about)->Owing(); },
      .about = this};
  gathering.record = context().BeginWait(gathering.subject);
  if (options_.end_ms <= 0) return;
  gathering.deadline = context().After(options_.end_ms, [this] {
    gathering_->subject.deadline_ms = options_.end_ms;
    Break(Error{ErrorCode::kDeadlineExceeded, DeadlineSentence(gathering_->subject)});
  });
}

void ShardActor::EndGather(Status status) {
  Gathering ended = *std::exchange(gathering_, std::nullopt);
  ended.record.Reset();
  context().Cancel(ended.deadline);
  if (ended.start_ns > 0) WriteSpan(ended);
  ended.arrival->status = std::move(status);
  ended.arrival->here.Set();
}

void ShardActor::WriteSpan(const Gathering& ended) {
  const WeightPass& pass = ended.arrival->pass;
  SpanRecord span;
  span.name = span_names_[static_cast<size_t>(pass.direction)];
  span.category = SpanCategory::kWait;
  span.rank = options_.rank.value;
  span.stage = static_cast<int16_t>(options_.stage.value);
  span.microbatch = pass.microbatch;
  span.step = static_cast<int32_t>(pass.step);
  span.start_ns = ended.start_ns;
  span.end_ns = context().clock().NowNs();
  ThreadTraceRing().Write(span);
}

void ShardActor::Break(const Error& error) {
  if (!broken_) broken_ = error;
  if (gathering_) EndGather(error);
}

Status ShardActor::On(const MemberLost& lost) {
  Peer* peer = Find(lost.rank.value);
  if (peer == nullptr) return {};
  peer->waiting.reset();
  if (peer->owner.num_bytes == 0) return {};
  const Error error = Context(name_, lost.cause);
  if (gathering_ && peer->owes()) {
    Break(error);
  } else if (!broken_) {
    broken_ = error;  // an open gather has what it needs of the lost one
  }
  return {};
}

std::string ShardActor::Missing() const {
  std::string text;
  for (const Peer& peer : peers_) {
    if (&peer == &peers_[own_] || !peer.owes()) continue;
    if (!text.empty()) text += "; ";
    text += peer.taken == 0 ? fmt::format("nothing from {}", peer.name)
                            : fmt::format("{} of {} bytes from {}", peer.taken,
                                          peer.owner.num_bytes, peer.name);
  }
  return text;
}

std::vector<int> ShardActor::Owing() const {
  std::vector<int> ranks;
  for (const Peer& peer : peers_) {
    if (&peer != &peers_[own_] && peer.owes()) ranks.push_back(peer.owner.rank.value);
  }
  return ranks;
}

}  // namespace troupe
