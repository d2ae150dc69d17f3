#include "actors/rank_ring.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "actors/kv_hop.h"
#include "actors/messages.h"
#include "kernels/tensor_view.h"

namespace troupe {
namespace {

DType DTypeOfWidth(int64_t num_bytes) {
  if (num_bytes == DTypeBytes(DType::kBFloat16)) return DType::kBFloat16;
  return num_bytes == DTypeBytes(DType::kFloat64) ? DType::kFloat64 : DType::kFloat32;
}

// Of the tokens of one rank.
TensorDescriptor BlockOf(const JobPlan& plan, int64_t width) {
  const int64_t tokens = plan.batch.tokens_per_microbatch();
  const int64_t channels = 2 * plan.config.key_value_size();
  return {.dtype = static_cast<uint8_t>(DTypeOfWidth(width)),
          .rank = 2,
          .shape = {tokens, channels, 0, 0},
          .num_bytes = static_cast<uint64_t>(tokens * channels * width)};
}

// The ring as passes see it: what they ask for is the actor's matter.
class ActorRing final : public KvRing {
 public:
  ActorRing(RingAttentionActor::SelfRef actor, int num_ranks, int index, const Clock& clock)
      : actor_(actor), num_ranks_(num_ranks), index_(index), clock_(clock) {}

  int num_ranks() const override { return num_ranks_; }
  int index() const override { return index_; }
  const Clock& clock() const override { return clock_; }
  void Expect(const KvHop& hop, int64_t num_bytes, KvArrival& arrival) override {
    Status sent = actor_.Send(ExpectBlock{hop, num_bytes, &arrival});
    if (sent.ok()) return;
    arrival.status = std::move(sent);  // the actor has ended: the job does, too
    arrival.here.Set();
  }
  void Send(const KvHop& hop, std::span<const std::byte> block, KvDeparture& departure) override {
    Status sent = actor_.Send(SendBlock{hop, block, &departure});
    if (sent.ok()) return;
    departure.status = std::move(sent);
    departure.gone.Set();
  }
  void Let(const KvHop& hop, int64_t idle_ns) override {
    (void)actor_.Send(LetBlock{hop, idle_ns});  // nothing is here of an actor that has ended
  }

 private:
  const RingAttentionActor::SelfRef actor_;
  const int num_ranks_;
  const int index_;
  const Clock& clock_;  // the scheduler's, as the actor's
};

int IndexOf(const std::vector<Rank>& ranks, Rank self) {
  return static_cast<int>(std::ranges::find(ranks, self) - ranks.begin());
}

}  // namespace

RankRingOptions RingOfRank(const JobPlan& plan, Rank rank) {
  const ContextParallel& context = plan.batch.context;
  if (!context.shared() || context.method != ContextMethod::kRing) return {};
  return {.ranks = plan.mesh.GroupOf(Axis::kCp, rank),
          .keys_values = BlockOf(plan, plan.widths.compute_bytes),
          .gradients = BlockOf(plan, plan.widths.master_bytes)};
}

RankRing::RankRing(RankRouter& router, RankRingOptions options,
                   const RankGroups::Deadlines& deadlines, MemoryLedger& ledger,
                   const RankTraffic* traffic)
    : router_(router),
      options_(std::move(options)),
      deadlines_(deadlines),
      ledger_(ledger),
      traffic_(traffic),
      index_(IndexOf(options_.ranks, router.self())) {}

RankRing::~RankRing() {
  if (ring_ == nullptr) return;
  router_.Unregister(kRingAttentionIndex);
  router_.scheduler().End(actor_);
}

Rank RankRing::Neighbour(int distance) const {
  const int size = static_cast<int>(options_.ranks.size());
  return options_.ranks[static_cast<size_t>((index_ + distance + size) % size)];
}

Status RankRing::Open(const TraceWindow& trace, std::function<void(const KvHop*)> on_hop) {
  if (options_.ranks.empty()) return {};
  work_.trace = trace;
  work_.self = router_.self();
  work_.ranks = options_.ranks;
  const Rank next = Neighbour(1);
  RingAttentionOptions options{.ranks = options_.ranks,
                               .index = index_,
                               .keys_values = options_.keys_values,
                               .gradients = options_.gradients,
                               .next = router_.Remote<WithBulk<KvBlock>, WithBulk<KvGradientBlock>>(
                                   next, kRingAttentionIndex),
                               .tell_ms = deadlines_.tell_ms,
                               .end_ms = deadlines_.end_ms,
                               .trace = trace,
                               .traffic = traffic_};
  options.on_hop = [this, on_hop = std::move(on_hop)](const KvHop* hop) {
    open_hop_ = hop == nullptr ? std::nullopt : std::optional(*hop);
    if (on_hop) on_hop(hop);
  };
  RETURN_IF_ERROR(OpenChannels(options));
  actor_ = router_.scheduler().Spawn<RingAttentionActor>({.name = "ring attention"},
                                                         std::move(options), std::ref(blocks_));
  router_.Register<WithBulk<KvBlock>, WithBulk<KvGradientBlock>>(kRingAttentionIndex, actor_);
  ring_ = std::make_unique<ActorRing>(actor_, static_cast<int>(options_.ranks.size()), index_,
                                      router_.scheduler().clock());
  return {};
}

Status RankRing::OpenChannels(RingAttentionOptions& options) {
  Transport& transport = router_.transport();
  const Rank previous = Neighbour(-1);
  for (size_t i = 0; i < options.copies.size(); ++i) {
    const bool of_gradients = i == kNumKvLanes;
    const auto num_bytes =
        static_cast<int64_t>((of_gradients ? options_.gradients : options_.keys_values).num_bytes);
    const auto channel = static_cast<uint16_t>(kKvChannel + i);
    RETURN_IF_ERROR(transport.PostSlots(previous, channel, kKvSlots, num_bytes));
    transport.SetCredits(Neighbour(1), channel, kKvSlots);
    if (transport.LaneTo(previous) != Lane::kInproc) continue;
    for (int slot = 0; slot < kKvSlots; ++slot) {
      copies_.push_back(Buffer::Unfilled(ledger_, MemoryTag::kComm, num_bytes));
      options.copies[i].push_back(copies_.back().bytes());
    }
  }
  return {};
}

std::vector<CommunicationVolume> RankRing::Sent() const {
  std::vector<CommunicationVolume> rows;
  const auto& [keys_values, gradients] = blocks_.sent;
  AddVolume(rows, {Axis::kCp, kKvHop, keys_values.hops, keys_values.bytes});
  AddVolume(rows, {Axis::kCp, kKvGradientHop, gradients.hops, gradients.bytes});
  return rows;
}

void RankRing::AddWork(proto::CommunicationReport::Attention& report) const {
  for (const std::vector<int64_t>& pairs : work_.pairs) {
    report.add_phases()->mutable_pairs()->Assign(pairs.begin(), pairs.end());
  }
  report.set_under_way_ns(blocks_.under_way_ns);
  report.set_idle_ns(blocks_.idle_ns);
}

std::string RankRing::OpenHopInWords(Rank peer) const {
  if (!open_hop_) return {};
  if (peer == Neighbour(-1)) return HopInWords(*open_hop_, peer, router_.self());
  const bool member = std::ranges::find(options_.ranks, peer) != options_.ranks.end();
  return member ? fmt::format("{}, hop {}", PassInWords(*open_hop_), open_hop_->hop) : "";
}

void RankRing::OnPeerDown(Rank peer, const Error& cause) {
  // Behind what the lost one sent. An actor that has ended waits for nobody.
  if (ring_ != nullptr) (void)actor_.Send(MemberLost{peer, cause});
}

void RankRing::OnCredit(uint16_t channel) {
  if (ring_ != nullptr) (void)actor_.Send(RingCredit{channel});
}

}  // namespace troupe
