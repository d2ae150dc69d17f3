#include "actors/ring_attention_actor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "actors/action_inputs.h"
#include "actors/kv_hop.h"
#include "runtime/trace/span.h"

namespace troupe {
namespace {

Rank RankAt(const RingAttentionOptions& options, int distance) {
  const int size = static_cast<int>(options.ranks.size());
  return options.ranks.at(static_cast<size_t>((options.index + distance + size) % size));
}

}  // namespace

RingAttentionActor::RingAttentionActor(RingAttentionOptions options, RingTraffic& traffic)
    : options_(std::move(options)),
      traffic_(traffic),
      self_(RankAt(options_, 0)),
      previous_(RankAt(options_, -1)),
      next_(RankAt(options_, 1)),
      waiter_(fmt::format("rank {}", self_)),
      previous_name_(fmt::format("rank {}", previous_)),
      next_name_(fmt::format("rank {}", next_)) {
  for (size_t i = 0; i < channels_.size(); ++i) {
    channels_[i].number = static_cast<uint16_t>(kKvChannel + i);
    channels_[i].free_copies = options_.copies[i];
  }
}

size_t RingAttentionActor::IndexOf(const KvHop& hop) {
  return hop.kind == KvKind::kGradients ? kNumKvLanes : static_cast<size_t>(LaneOf(hop.phase));
}

void RingAttentionActor::SayIfIdle() const {
  if (!options_.on_hop) return;
  const bool idle = std::ranges::all_of(channels_, [](const Channel& channel) {
    return channel.expected.empty() && std::ranges::all_of(channel.here, &Here::let);
  });
  if (idle) options_.on_hop(nullptr);
}

// ---- coming ------------------------------------------------------------------------------------

Status RingAttentionActor::On(const ExpectBlock& expect) {
  const KvHop& hop = expect.hop;
  Channel& channel = channels_[IndexOf(hop)];
  const auto held = std::ranges::count(channel.here, false, &Here::let);
  CHECK(expect.num_bytes == static_cast<int64_t>(TensorOf(hop.kind).num_bytes),
        "{}, {}: {} bytes of {} are expected", waiter_, PassInWords(hop), expect.num_bytes,
        TensorOf(hop.kind).num_bytes);
  CHECK(std::ssize(channel.expected) + held < kKvSlots, "{}, {}: {} is expected beside {} others",
        waiter_, PassInWords(hop), BlockInWords(hop), kKvSlots);
  if (broken_) {
    expect.arrival->status = *broken_;
    expect.arrival->here.Set();
    return {};
  }
  channel.expected.push_back(
      {.hop = hop, .arrival = expect.arrival, .since_ns = context().clock().NowNs(), .wait = {}});
  if (options_.on_hop) options_.on_hop(&hop);
  RETURN_IF_ERROR(GiveOut(channel));
  if (!channel.expected.empty()) BeginWait(channel.expected.back().wait, hop, Way::kComes);
  return {};
}

template <typename M>
Status RingAttentionActor::Take(KvKind kind, WithBulk<M> block) {
  if (broken_) return {};  // I5
  const Result<KvHop> read = Read(kind, block.message, block.envelope);
  if (!read.ok()) return Refuse(block.envelope.source_rank, read.error());
  const KvHop& hop = *read;
  Channel& channel = channels_[IndexOf(hop)];
  if (channel.early.size() + (copies() ? 0 : channel.here.size()) >= size_t{kKvSlots}) {  // I2
    return Refuse(block.envelope.source_rank,
                  Error{ErrorCode::kCorrupt, "there is no slot for it"});
  }
  if (options_.trace.Covers(hop.step)) WriteReceived(hop, block.envelope, block.arrived_ns);
  channel.early.push_back({.hop = hop,
                           .tensor = block.message.tensor,
                           .bulk = std::move(block.bulk),
                           .came_ns = context().clock().NowNs()});
  return GiveOut(channel);
}

Status RingAttentionActor::On(WithBulk<KvBlock> block) {
  return Take(KvKind::kKeysValues, std::move(block));
}
Status RingAttentionActor::On(WithBulk<KvGradientBlock> block) {
  return Take(KvKind::kGradients, std::move(block));
}

template <typename M>
Result<KvHop> RingAttentionActor::Read(KvKind kind, const M& block,
                                       const Envelope& envelope) const {
  if (envelope.source_rank != previous_.value) {
    return MakeError(ErrorCode::kCorrupt, "{} comes before this one", previous_name_);
  }
  const bool backward = block.phase == static_cast<uint32_t>(KvPhase::kBackward);
  if (block.phase >= kNumKvPhases || (kind == KvKind::kGradients && !backward)) {
    return MakeError(ErrorCode::kCorrupt, "phase {} has none", block.phase);
  }
  const KvHop hop = HopOf(kind, block);
  const Channel& channel = channels_[IndexOf(hop)];
  if (envelope.channel != channel.number) {
    return MakeError(ErrorCode::kCorrupt, "it came on channel {}, not {}", envelope.channel,
                     channel.number);
  }
  return hop;
}

Status RingAttentionActor::GiveOut(Channel& channel) {
  while (!channel.expected.empty() && !channel.early.empty()) {
    Early& early = channel.early.front();
    const Status fits = Check(early, channel.expected.front().hop);
    if (!fits.ok()) return Refuse(previous_.value, fits.error());
    if (copies() && channel.free_copies.empty()) return {};  // its last block has not gone yet
    Expected ended = std::move(channel.expected.front());
    channel.expected.pop_front();
    EndWait(ended.wait);
    Here& here = channel.here.emplace_back(Here{.hop = ended.hop, .slot = std::move(early.bulk)});
    here.block = here.slot.bytes();
    if (counts()) {
      traffic_.under_way_ns += std::max<int64_t>(early.came_ns - ended.since_ns, 0);
    }
    channel.early.pop_front();
    if (copies()) {  // I6
      const auto place = channel.free_copies.back().first(here.block.size());
      channel.free_copies.pop_back();
      std::memcpy(place.data(), here.block.data(), place.size());
      here.block = place;
      here.slot.Release();
    }
    ended.arrival->block = here.block;
    ended.arrival->here.Set();
  }
  return {};
}

Status RingAttentionActor::Check(const Early& early, const KvHop& expected) const {
  const TensorDescriptor& tensor = TensorOf(expected.kind);
  const auto num_bytes = std::ssize(early.bulk.bytes());
  const auto own_bytes = static_cast<int64_t>(tensor.num_bytes);
  if (early.hop == expected && SameTensor(early.tensor, tensor) && num_bytes == own_bytes)
    return {};
  return MakeError(ErrorCode::kCorrupt, "{}, came where {}, was to come",
                   BlockIdentity(early.hop, early.tensor, num_bytes, options_.ranks),
                   BlockIdentity(expected, tensor, own_bytes, options_.ranks));
}

Status RingAttentionActor::On(const LetBlock& let) {
  Channel& channel = channels_[IndexOf(let.hop)];
  const auto here = std::ranges::find_if(
      channel.here, [&let](const Here& each) { return !each.let && each.hop == let.hop; });
  CHECK(here != channel.here.end(), "{}, {}: {} is let go and was not here", waiter_,
        PassInWords(let.hop), BlockInWords(let.hop));
  here->let = true;
  if (counts()) traffic_.idle_ns += let.idle_ns;
  SayIfIdle();
  if (broken_) return {};
  FreeSlots(channel);
  return GiveOut(channel);
}

void RingAttentionActor::FreeSlots(Channel& channel) {
  std::erase_if(channel.here, [this, &channel](const Here& here) {
    if (!here.let || here.num_leaving > 0) return false;  // I4
    if (copies()) channel.free_copies.push_back(here.block);
    return true;
  });
}

// ---- leaving -----------------------------------------------------------------------------------

Status RingAttentionActor::On(const SendBlock& send) {
  Channel& channel = channels_[IndexOf(send.hop)];
  CHECK(send.block.size() == TensorOf(send.hop.kind).num_bytes, "{}, {}: {} bytes of {} are sent",
        waiter_, PassInWords(send.hop), send.block.size(), TensorOf(send.hop.kind).num_bytes);
  if (broken_) {
    send.departure->status = *broken_;
    send.departure->gone.Set();
    return {};
  }
  if (Here* holder = HolderOf(channel, send.block)) ++holder->num_leaving;
  channel.parked.push_back({.hop = send.hop,
                            .block = send.block,
                            .departure = send.departure,
                            .number = ++num_sent_,
                            .wait = {}});
  Flush(channel);
  return {};
}

RingAttentionActor::Here* RingAttentionActor::HolderOf(Channel& channel,
                                                       std::span<const std::byte> block) {
  const auto holder = std::ranges::find_if(
      channel.here, [block](const Here& here) { return here.block.data() == block.data(); });
  return holder == channel.here.end() ? nullptr : &*holder;
}

void RingAttentionActor::Flush(Channel& channel) {
  while (!channel.parked.empty()) {
    Departing& departing = channel.parked.front();
    const Status sent = Send(channel, departing);
    if (!sent.ok()) {
      const Error& error = sent.error();
      const bool no_credit = error.code == ErrorCode::kResourceExhausted;
      // Of a lost peer the router says so soon.
      CHECK(no_credit || error.code == ErrorCode::kPeerDown, "{}", error.message);
      if (no_credit && !departing.wait.record.waiting()) {
        BeginWait(departing.wait, departing.hop, Way::kLeaves);
      }
      return;  // I3
    }
    EndWait(departing.wait);
    if (counts()) {
      RingTraffic::Sent& sum = traffic_.sent[static_cast<size_t>(departing.hop.kind)];
      ++sum.hops;
      sum.bytes += std::ssize(departing.block);
    }
    channel.leaving.push_back(std::move(departing));
    channel.parked.pop_front();
  }
}

Status RingAttentionActor::Send(const Channel& channel, Departing& departing) {
  const KvHop& hop = departing.hop;
  if (options_.trace.Covers(hop.step)) {
    departing.flow_id = NewFlowId(self_);
    departing.start_ns = context().clock().NowNs();
  }
  const Postmark postmark{.channel = channel.number,
                          .step = hop.step,
                          .microbatch = hop.microbatch,
                          .flow_id = departing.flow_id};
  // An actor that has ended knows no departures any more.
  auto done = [actor = ActorRef<BlockSent>(self()), number = departing.number] {
    (void)actor.Send(BlockSent{number});
  };
  const TensorDescriptor& tensor = TensorOf(hop.kind);
  if (hop.kind == KvKind::kKeysValues) {
    return options_.next.SendBulk(MessageOf<KvBlock>(hop, tensor), departing.block, std::move(done),
                                  postmark);
  }
  return options_.next.SendBulk(MessageOf<KvGradientBlock>(hop, tensor), departing.block,
                                std::move(done), postmark);
}

Status RingAttentionActor::On(const BlockSent& sent) {
  for (Channel& channel : channels_) {
    const auto gone = std::ranges::find(channel.leaving, sent.number, &Departing::number);
    if (gone == channel.leaving.end()) continue;
    if (gone->flow_id != 0) WriteSent(*gone);
    if (Here* holder = HolderOf(channel, gone->block)) --holder->num_leaving;
    gone->departure->gone.Set();
    channel.leaving.erase(gone);
    FreeSlots(channel);
    return GiveOut(channel);
  }
  return {};  // broken meanwhile
}

Status RingAttentionActor::On(const RingCredit& credit) {
  const auto index = static_cast<size_t>(credit.channel - kKvChannel);
  CHECK(index < channels_.size(), "{}: a credit of channel {}", waiter_, credit.channel);
  Flush(channels_[index]);
  return {};
}

// ---- waits and ends ----------------------------------------------------------------------------

WaitSubject RingAttentionActor::SubjectOf(const KvHop& hop, Way way) {
  std::string& activity = activities_[hop.layer];
  if (activity.empty()) activity = fmt::format("attention of layer {}", hop.layer);
  std::string& owed = owed_[{way, hop.kind, hop.hop}];
  const bool comes = way == Way::kComes;
  if (owed.empty()) owed = (comes ? "" : "a slot for the ") + BlockInWords(hop);
  return {.waiter = waiter_,
          .activity = activity,
          .owed = owed,
          .from = comes ? previous_name_ : next_name_,
          .step = hop.step,
          .microbatch = hop.microbatch,
          .from_rank = comes ? previous_.value : next_.value,
          .deadline_ms = options_.tell_ms};
}

void RingAttentionActor::BeginWait(Wait& wait, const KvHop& hop, Way way) {
  wait.record = context().BeginWait(SubjectOf(hop, way));
  if (options_.end_ms <= 0) return;
  wait.deadline = context().After(options_.end_ms, [this, hop, way] {
    WaitSubject subject = SubjectOf(hop, way);
    subject.deadline_ms = options_.end_ms;
    Break(Error{ErrorCode::kDeadlineExceeded, DeadlineSentence(subject)});
  });
}

void RingAttentionActor::EndWait(Wait& wait) {
  wait.record.Reset();
  context().Cancel(wait.deadline);
}

Status RingAttentionActor::Refuse(int32_t from, Error error) {
  const Error refused = Context(
      fmt::format("{}, ring attention: a block of rank {}", waiter_, from), std::move(error));
  Break(refused);
  return refused;
}

void RingAttentionActor::Break(const Error& error) {
  if (broken_) return;
  broken_ = error;
  for (Channel& channel : channels_) {
    for (Expected& expected : std::exchange(channel.expected, {})) {
      EndWait(expected.wait);
      expected.arrival->status = error;
      expected.arrival->here.Set();
    }
    for (auto* departures : {&channel.parked, &channel.leaving}) {
      for (Departing& departing : std::exchange(*departures, {})) {
        EndWait(departing.wait);
        departing.departure->status = error;
        departing.departure->gone.Set();
      }
    }
    channel.early.clear();
  }
  SayIfIdle();
}

std::string RingAttentionActor::OpenHopInWords(Rank lost) const {
  const KvHop* comes = nullptr;
  const KvHop* leaves = nullptr;
  for (const Channel& channel : channels_) {
    if (comes == nullptr && !channel.expected.empty()) comes = &channel.expected.front().hop;
    for (const auto* departures : {&channel.leaving, &channel.parked}) {
      if (leaves == nullptr && !departures->empty()) leaves = &departures->front().hop;
    }
  }
  const bool leaves_first = lost == next_ && lost != previous_;
  if (comes != nullptr && !(leaves_first && leaves != nullptr)) {
    return HopInWords(*comes, previous_, self_);
  }
  return leaves != nullptr ? HopInWords(*leaves, self_, next_) : "ring attention";
}

Status RingAttentionActor::On(const MemberLost& lost) {
  if (std::ranges::find(options_.ranks, lost.rank) == options_.ranks.end()) return {};
  Break(Context(fmt::format("{}, {}", waiter_, OpenHopInWords(lost.rank)), lost.cause));
  return {};
}

// ---- traces ------------------------------------------------------------------------------------

void RingAttentionActor::WriteReceived(const KvHop& hop, const Envelope& envelope,
                                       int64_t arrived_ns) const {
  SpanRecord span = SpanOf(hop, options_.ranks, self_);
  span.category = SpanCategory::kReceive;
  span.flow_in = envelope.flow_id;
  span.end_ns = context().clock().NowNs();
  span.start_ns = arrived_ns > 0 ? arrived_ns : span.end_ns;
  ThreadTraceRing().Write(span);
}

void RingAttentionActor::WriteSent(const Departing& gone) const {
  SpanRecord span = SpanOf(gone.hop, options_.ranks, self_);
  span.category = SpanCategory::kSend;
  span.flow_out = gone.flow_id;
  span.start_ns = gone.start_ns;
  span.end_ns = context().clock().NowNs();
  ThreadTraceRing().Write(span);
}

}  // namespace troupe
